"""Reading a record: ``read_record`` puts the frames of a file together, session by session.

record = foredraft.read_record("session.rec")
for session in record.sessions:
    print(session.figures["tpot_s"], [position.rank for position in session.positions])
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import msgspec

from foredraft.errors import ConfigError, ProtocolError, RecordError
from foredraft.observe.record.frames import (
    BEYOND,
    HEADER,
    TITLE,
    UNASKED,
    VERSION,
    Asked,
    Began,
    Closed,
    Ended,
    Frame,
    FrameError,
    Length,
    Noted,
    Passed,
    Said,
    Setup,
    Token,
    TokenPredictions,
    decode_frame,
)
from foredraft.protocol.anchor import ORIGIN, Anchor
from foredraft.protocol.messages import unpack
from foredraft.protocol.sampling import Sampling, StopRules


@dataclass(frozen=True, slots=True)
class Position:
    """One committed position of a session. ``token`` is HIDDEN (-1) in a private record.

    ``rank``: which of the draft's guesses the token is, from 0; BEYOND (-1) where it is none of the likeliest
    ``RANKED``, UNASKED (-2) where that is not known. ``guesses``: the draft's likeliest tokens with its own
    probabilities. ``predictions``: per exit, shallowest first, the token that it says and its
    calibrated confidence; ``right``: whether that is the token. Empty where no exit was asked.
    ``cloud_rank``, ``cloud_guesses``: rank and guesses of a draft beside the target of a live session, at most one.
    """

    position: int
    token: int
    rank: int
    guesses: tuple[Said, ...]
    predictions: tuple[Said, ...]
    right: tuple[bool, ...]
    cloud_rank: int = UNASKED
    cloud_guesses: tuple[Said, ...] = ()


@dataclass(frozen=True)
class RecordedSession:
    """One session of a record. ``ended`` is None where the file was cut off before its end."""

    began: Began
    noted: tuple[Noted, ...] = ()
    asked: tuple[Asked, ...] = ()
    passed: tuple[Passed, ...] = ()
    predictions: tuple[TokenPredictions, ...] = ()
    ended: Ended | None = None

    @property
    def number(self) -> int:
        """Its number in the record."""
        return self.began.session

    @cached_property
    def prompt(self) -> list[int]:
        """The prompt's tokens; empty in a private record (``began.prompt_tokens`` is their number)."""
        return unpack(self.began.prompt)

    @cached_property
    def tokens(self) -> list[int]:
        """The committed tokens, as far as they are recorded; HIDDEN (-1) each in a private record."""
        if self.ended is not None:
            return unpack(self.ended.tokens) or [-1] * self.ended.new_tokens
        commits = [one.data["tokens"] for one in self.noted if one.where == "edge" and one.kind == "commit"]
        said = [msgspec.convert(tokens, list[Token] | Length) for tokens in commits]
        return [token for tokens in said for token in (tokens if isinstance(tokens, list) else [-1] * tokens)]

    @property
    def figures(self) -> dict[str, float | int | str]:
        """The session's report (``edge.session_report.SessionReport``), text left out; empty if it was cut off."""
        return {} if self.ended is None else dict(self.ended.figures)

    @property
    def finish(self) -> str:
        """Why the text ended; empty if the file was cut off before."""
        return "" if self.ended is None else self.ended.finish

    @property
    def sampling(self) -> Sampling:
        """How the target sampled."""
        return Sampling(self.began.temperature, self.began.top_k, self.began.top_p, self.began.seed)

    @property
    def rules(self) -> StopRules:
        """When the text had to end."""
        return StopRules(self.began.max_new_tokens, self.began.stop_tokens, self.began.stop_strings)

    @cached_property
    def said(self) -> dict[Anchor, dict[int, tuple[Said, ...]]]:
        """What the draft said below each prefix that it was asked about, by how many guesses it was asked for."""
        said: dict[Anchor, dict[int, tuple[Said, ...]]] = {}
        for one in self.asked:
            said.setdefault(Anchor(one.position, one.hash), {})[one.width] = one.guesses
        return said

    @cached_property
    def positions(self) -> tuple[Position, ...]:
        """Each committed position, with what draft and exits said of it."""
        predictions = {one.position: one for one in self.predictions}
        anchor, found = ORIGIN.after(self.prompt), []
        for position, token in enumerate(self.tokens, self.began.prompt_tokens):
            said = self.said.get(anchor, {})
            widest = said[max(said)] if said else None
            found.append(_position(position, token, predictions.get(position), widest))
            anchor = anchor.then(max(0, token))
        return tuple(found)


def _position(
    position: int, token: int, predictions: TokenPredictions | None, said: tuple[Said, ...] | None
) -> Position:
    if predictions is not None:
        beside = predictions.cloud_rank, predictions.cloud_guesses
        return Position(
            position, token, predictions.rank, predictions.guesses, predictions.predictions, predictions.right, *beside
        )
    ranks = [rank for rank, (guess, _) in enumerate(said or ()) if guess == token]
    known = UNASKED if said is None else (ranks[0] if ranks else BEYOND)
    return Position(position, token, known, said or (), (), ())


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a record stops being readable: byte ``at_byte`` of ``size_bytes``, and why."""

    at_byte: int
    size_bytes: int
    reason: str

    def __str__(self) -> str:
        return f"cut off at byte {self.at_byte:,} of {self.size_bytes:,}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Record:
    """A record file: the set-up, its sessions by number, and where it was cut off, if it was.

    ``notes``: what could not be recorded. ``noted``: everything that happened, in the order in
    which it was written (that of time, for a simulated record).
    """

    path: Path
    setup: Setup
    sessions: tuple[RecordedSession, ...]
    cut: Cut | None = None
    notes: tuple[str, ...] = ()
    noted: tuple[Noted, ...] = field(default=(), repr=False)


def read_record(path: str | Path) -> Record:
    """The record in a file that ``--record`` wrote; one that was cut off is read up to the cut.

    Raises RecordError for a file that cannot be read, is no record, is one of another version, or ends
    before there is anything in it.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise RecordError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse_record(data, path)


def parse_record(data: bytes, path: Path) -> Record:
    """The record in ``data``; ``path`` is for messages. Raises RecordError."""
    at = _after_header(data, path)
    view = memoryview(data)
    frames: list[Frame] = []
    reason = ""
    while not (frames and isinstance(frames[-1], Closed)):
        try:
            frame, at = decode_frame(view, at)
        except FrameError as error:
            reason = str(error) if at < len(data) else "the end was never written"
            break
        frames.append(frame)
    if not frames or not isinstance(frames[0], Setup):
        raise RecordError(f"{path}: nothing is recorded: {Cut(at, len(data), reason or 'no set-up comes first')}")
    cut = Cut(at, len(data), reason) if reason else None
    try:
        return _assembled(path, frames, cut)
    except (ConfigError, ProtocolError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise RecordError(f"{path}: a record that contradicts itself: {error!r}; record again") from error


def frames_in(data: bytes) -> list[Frame]:
    """The frames of a record that was just written whole."""
    view, at, frames = memoryview(data), len(HEADER), []
    while at < len(data):
        frame, at = decode_frame(view, at)
        frames.append(frame)
    return frames


def _after_header(data: bytes, path: Path) -> int:
    """Where the frames begin."""
    line, _, _ = data[: len(TITLE) + 12].partition(b"\n")
    if data.startswith(HEADER):
        return len(HEADER)
    version = line[len(TITLE) :]
    if line.startswith(TITLE) and version.isdigit() and len(line) < len(data):
        raise RecordError(
            f"{path}: a record of version {version.decode()}, and this Foredraft reads version {VERSION}; "
            "read it with the Foredraft that wrote it, or record again"
        )
    if HEADER.startswith(data):
        raise RecordError(f"{path}: nothing is recorded: {Cut(0, len(data), 'the file ends within its header')}")
    raise RecordError(f"{path}: not a record; records are written by foredraft generate --record FILE, or simulate")


def _assembled(path: Path, frames: list[Frame], cut: Cut | None) -> Record:
    setup, last = frames[0], frames[-1]
    if not isinstance(setup, Setup):
        raise TypeError("no set-up")
    begun: dict[int, Began] = {}
    of: dict[int, list[Frame]] = {}
    for frame in frames[1:]:
        if isinstance(frame, Began):
            begun[frame.session] = frame
            of[frame.session] = []
        elif not isinstance(frame, Setup | Closed):
            of[frame.session].append(frame)
    return Record(
        path,
        setup,
        tuple(_session(begun[number], of[number]) for number in sorted(begun)),
        cut,
        last.notes if isinstance(last, Closed) else (),
        tuple(frame for frame in frames if isinstance(frame, Noted)),
    )


def _session(began: Began, frames: Iterable[Frame]) -> RecordedSession:
    parts = list(frames)
    ended = [frame for frame in parts if isinstance(frame, Ended)]
    session = RecordedSession(
        began,
        tuple(frame for frame in parts if isinstance(frame, Noted)),
        tuple(frame for frame in parts if isinstance(frame, Asked)),
        tuple(frame for frame in parts if isinstance(frame, Passed)),
        tuple(frame for frame in parts if isinstance(frame, TokenPredictions)),
        ended[-1] if ended else None,
    )
    _ = session.tokens, session.prompt, session.sampling, session.rules  # what is wrong with them is said by now
    return session
