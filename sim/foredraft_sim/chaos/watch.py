"""How a world is watched: an ear at the server's end of each link, a target that keeps times, the lines of the log."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from foredraft.engines.paced import PacedTarget
from foredraft.errors import ProtocolError
from foredraft.links.tap import Tap
from foredraft.protocol.events import LOG_OF_SESSIONS
from foredraft.protocol.messages import Commit, Hello, Message, Open, Refused, unpack
from foredraft.protocol.ports import Link, Pass, Prediction, Slot, TargetCard, Verdict
from foredraft.protocol.sampling import Sampling
from foredraft_sim.chaos.engines import pass_alone_s, prefill_alone_s
from foredraft_sim.chaos.seen import Conversation, Opened, Process, Stay

SPEAKING: ContextVar[Process] = ContextVar("speaking")
"""Whose process a coroutine belongs to: all of them share one log here."""

Told = Callable[[int, int], None]
"""Told of a commit: the request's seed, and up to which position its text is committed now."""


class Ear(Tap):
    """The server's end of a link, and what is said on it."""

    def __init__(self, link: Link, heard: Conversation, told: Told) -> None:
        super().__init__(link)
        self._heard, self._told = heard, told
        self._greeted = False
        self._by_number: dict[int, Opened] = {}

    def _arrived(self, message: Message, size_bytes: int) -> None:
        if isinstance(message, Hello):
            self._greeted = True
        if isinstance(message, Open) and self._greeted and message.session not in self._by_number:
            try:
                tokens = unpack(message.tokens)
            except ProtocolError:
                tokens = []
            opened = Opened(message.session, tokens, message.start, message.seed)
            opened.late = any(number > message.session for number in self._by_number)
            self._by_number[message.session] = opened
            self._heard.opened.append(opened)

    def _left(self, message: Message, sent_s: float, size_bytes: int) -> None:
        if isinstance(message, Refused):
            self._heard.refused.append((message.session, message.code))
        if isinstance(message, Commit):
            opened, tokens = self._by_number.get(message.session), unpack(message.tokens)
            if opened is not None:
                opened.commits.append((message.position, tokens, message.finish))
                self._told(opened.seed, message.position + len(tokens))


class WatchedTarget:
    """A target, and what its places had of it. ``spent``: whether the key of that name has been none for a while."""

    def __init__(self, inner: PacedTarget, process: Process, spent: Callable[[str], bool]) -> None:
        self._inner, self._process, self._spent = inner, process, spent
        self.places: Counter[str] = Counter()

    @property
    def card(self) -> TargetCard:
        """The inner target's."""
        return self._inner.card

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> Slot:
        """A place. Raises what the inner target raises."""
        slot = await self._inner.slot(tokens, sampling, owner)
        self.places[owner] += 1
        most = self._process.most
        most[owner] = max(most.get(owner, 0), self.places[owner])
        stay = Stay(owner)
        self._process.stays.append(stay)
        return _WatchedSlot(self, slot, stay)

    def asked(self, owner: str) -> None:
        """Something is to run for a key."""
        if self._spent(owner):
            self._process.late[owner] = self._process.late.get(owner, 0) + 1

    async def close(self) -> None:
        """Close the inner target."""
        await self._inner.close()


class _WatchedSlot:
    """A place, and what its passes took."""

    def __init__(self, target: WatchedTarget, inner: Slot, stay: Stay) -> None:
        self._target, self._inner, self._stay = target, inner, stay
        self._clock = asyncio.get_running_loop()
        self._served_s = -1.0

    @property
    def cached(self) -> int:
        return self._inner.cached

    async def prefill(self, tokens: Sequence[int]) -> float:
        self._target.asked(self._stay.key)
        asked_s = self._clock.time()
        took_s = await self._inner.prefill(tokens)
        self._had(asked_s, prefill_alone_s(len(tokens)))
        return took_s

    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        self._target.asked(self._stay.key)
        asked_s = self._clock.time()
        verdict = await self._inner.verify(batch, on_exit)
        self._had(asked_s, pass_alone_s(len(batch.trunk) + len(batch.tokens)))
        return verdict

    def _had(self, asked_s: float, alone_s: float) -> None:
        stay, now_s = self._stay, self._clock.time()
        stay.took_s += now_s - asked_s
        stay.alone_s += alone_s
        stay.anew += asked_s > self._served_s
        self._served_s = now_s

    def keep(self, nodes: Sequence[int]) -> None:
        self._inner.keep(nodes)

    def close(self) -> None:
        self._target.places[self._stay.key] -= 1
        self._inner.close()


class _Lines(logging.Handler):
    """Gives each line to the process that said it."""

    def emit(self, record: logging.LogRecord) -> None:
        process = SPEAKING.get(None)
        if process is not None:
            process.lines.append(record.__dict__["fields"])


@contextmanager
def lines_heard() -> Iterator[None]:
    """Within it, the lines of sessions go to their processes, and whatever else is logged nowhere."""
    everything, sessions = logging.getLogger("foredraft"), logging.getLogger(LOG_OF_SESSIONS)
    before = [(one, one.level, one.propagate) for one in (everything, sessions)]
    handler = _Lines()
    everything.setLevel(logging.CRITICAL + 1)
    sessions.setLevel(logging.INFO)
    sessions.propagate = False
    sessions.addHandler(handler)
    try:
        yield
    finally:
        sessions.removeHandler(handler)
        for one, level, propagate in before:
            one.setLevel(level)
            one.propagate = propagate
