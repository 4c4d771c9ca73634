"""The recorder of one live session: what ``record=`` of ``Edge.generate`` and ``--record`` do.

Each frame is written, without a buffer, when it happens. When the text is finished, and everybody
has it, the recorder asks the draft about each of its tokens, and the cloud what its exits and its draft say of
them; it goes on where it gets no answer, and says so in the record's notes.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from foredraft.cloud.read_back import guesses_along
from foredraft.edge.connections import Connect
from foredraft.edge.estimates import Estimates
from foredraft.edge.session_report import SessionReport
from foredraft.errors import ForedraftError, RecordError
from foredraft.observe.record.frames import HEADER, Closed, Frame, Setup, encode_frame, models_of
from foredraft.observe.record.journal import Journal
from foredraft.observe.record.plain_profiles import profile_as_plain
from foredraft.observe.record.predictions import RANKED, CloudSays, ask_cloud, told_of
from foredraft.observe.record.privacy import hidden
from foredraft.observe.record.reading import Record, parse_record, read_record
from foredraft.profiles import DraftProfile, LinkProfile
from foredraft.protocol.events import Observer
from foredraft.protocol.messages import Ready
from foredraft.protocol.ports import Drafter, Guess
from foredraft.protocol.sampling import Sampling, StopRules

ASKING_S: Final = 300.0
"""So long the cloud may take to tell what its exits and its draft say."""
PREFILL_CHUNK: Final = 512
"""What is assumed of a target that says nothing of it (``protocol.ports.TargetCard``)."""
SESSION: Final = 0


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is recorded: the text's circumstances and the ports of its session."""

    prompt: Sequence[int]
    sampling: Sampling
    rules: StopRules
    policy: str
    ready: Ready
    drafter: Drafter
    connect: Connect
    draft: str = ""
    pace: DraftProfile | None = None
    api_key: str = ""
    observer: Observer | None = None
    estimates: Estimates | None = None


class Recorder:
    """Records one session to ``file``, or to memory (None). Use it once.

    ``private``: no token ids are recorded, only ranks and lengths. ``ask``: whether to ask draft and
    exits about the finished text. ``link``: the emulated link, where there is one.
    """

    def __init__(
        self,
        file: str | Path | None = None,
        *,
        private: bool = False,
        ask: bool = True,
        link: LinkProfile | None = None,
    ) -> None:
        self.file = None if file is None else Path(file)
        self._private = private
        self._ask = ask
        self._link = link
        self._sink: BinaryIO | None = None
        self._kept: BytesIO | None = None
        self._error: OSError | None = None
        self._of: Recorded | None = None
        self._journal = Journal(self._write, lambda: SESSION)
        if self.file is not None and (self.file.is_dir() or not self.file.parent.is_dir()):
            wrong = "it is a folder" if self.file.is_dir() else f"there is no folder {self.file.parent}"
            raise RecordError(f"cannot record to {self.file}: {wrong}")

    def listen(self, of: Recorded) -> tuple[Drafter, Connect, Observer]:
        """The ports that the session is to use in the place of its own. Raises RecordError when used twice."""
        if self._of is not None:
            raise RecordError("a recorder records one session; make another for the next")
        self._of = of
        journal = self._journal
        return journal.drafter(of.drafter), journal.connect(of.connect), journal.observer(0, of.observer)

    def begin(self) -> None:
        """The session begins. Raises RecordError when the file cannot be written."""
        of = self._recorded()
        try:
            if self.file is None:
                self._sink = self._kept = BytesIO()
            else:
                self._sink = self.file.open("wb", buffering=0)
            self._sink.write(HEADER)
        except OSError as error:
            if self._sink is not None:
                self._sink.close()
            raise RecordError(f"cannot record to {self.file}: {error.strerror or error}") from error
        self._write(_setup_of(of, self._private, self._link))
        now_s = asyncio.get_running_loop().time()
        self._journal.began(0, now_s, now_s, of.prompt, of.sampling, of.rules, of.estimates)

    async def finish(self, report: SessionReport) -> None:
        """The session has its text: ask about it, and close the file. Raises RecordError for an incomplete one."""
        self._journal.ended(report)
        notes: list[str] = []
        if self._ask and report.tokens:
            await self._ask_about(report.tokens, notes)
        self._close(*notes)
        if self._error is not None:
            raise RecordError(f"{self.file}: the record is incomplete: {self._error.strerror or self._error}")

    def give_up(self, why: str) -> None:
        """The session has ended without its whole text; what there is stays. Nothing if it has finished."""
        if self._sink is not None:
            self._close(f"the session ended early: {why}")

    def record(self) -> Record:
        """The record, once the session is over."""
        if self._kept is not None:
            return parse_record(self._kept.getvalue(), Path("the session"))
        if self.file is None:
            raise RecordError("nothing is recorded yet")
        return read_record(self.file)

    async def _ask_about(self, tokens: Sequence[int], notes: list[str]) -> None:
        of = self._recorded()
        guesses: list[list[Guess]] = []
        cloud = CloudSays()
        try:
            guesses = await guesses_along(of.drafter, of.prompt, tokens, of.sampling, RANKED)
        except ForedraftError as error:
            notes.append(f"the draft was not asked about each token: {error}")
        if of.ready.exits or of.ready.cloud_drafts:
            whole = [*of.prompt, *tokens]
            try:
                async with asyncio.timeout(ASKING_S):
                    cloud = await ask_cloud(of.connect, of.api_key, whole, len(of.prompt), of.sampling)
            except (ForedraftError, TimeoutError) as error:
                notes.append(f"the exits were not asked about each token: {error or 'no answer'}")
        for predictions in told_of(SESSION, len(of.prompt), tokens, guesses, cloud):
            self._write(predictions)

    def _recorded(self) -> Recorded:
        if self._of is None:
            raise RecordError("the recorder listens to no session; give it to Edge.generate(record=...)")
        return self._of

    def _write(self, frame: Frame) -> None:
        """Append a frame. A disk that is full ends the record, not the session."""
        kept = hidden(frame) if self._private else frame
        if kept is None or self._sink is None or self._error is not None:
            return
        try:
            self._sink.write(encode_frame(kept))
        except OSError as error:
            self._error = error

    def _close(self, *notes: str) -> None:
        self._write(Closed(notes))
        if self._sink is not None and self._kept is None:
            self._sink.close()
        self._sink = None


def _setup_of(of: Recorded, private: bool, link: LinkProfile | None) -> Setup:
    from foredraft.version import __version__

    draft_nodes = of.drafter.max_nodes_per_step
    models = models_of(of.ready, prefill_chunk=PREFILL_CHUNK, draft=of.draft, draft_nodes=draft_nodes)
    return Setup(
        foredraft=__version__,
        simulated=False,
        private=private,
        policy=of.policy,
        models=models,
        edge=None if of.pace is None else profile_as_plain(of.pace),
        link=None if link is None else profile_as_plain(link),
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
