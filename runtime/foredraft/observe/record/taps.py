"""Taps: listening on the links of a session, without the session noticing."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from foredraft.edge.connections import Connect
from foredraft.links.tap import Tap
from foredraft.protocol.messages import Commit, Grow, Message, Open, Refused, Steer
from foredraft.protocol.ports import Link

Note = Callable[[str, str, dict[str, Any]], None]
"""Told ``where``, ``kind`` and data, at the moment at which it happens."""


def tapped(connect: Connect, note: Note) -> Connect:
    """``connect`` with its links tapped at the edge, where alone one hears a link whose other end is far away.

    What goes up is noted when it leaves, what comes down when it arrives; with a commit go the round trip that
    it closes and what it tells of the cloud's time (``heard``, ``heard_s``, ``waited_s``, and ``draft_us`` where
    the cloud drafted, of ``protocol.messages.Commit``).
    """

    async def connected() -> Link:
        began_s = asyncio.get_running_loop().time()
        link = await connect()
        note("edge", "connect", {"began_s": began_s})
        return _EdgeTap(link, note)

    return connected


class BothEnds:
    """Listens at both ends of the links that one device makes, one after another: messages are noted as they arrive."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._up: deque[float] = deque()  # when what is on its way was sent
        self._down: deque[float] = deque()

    def cloud(self, link: Link) -> Link:
        """The cloud's end of a new link."""
        self._up, self._down = deque(), deque()
        return _EndTap(link, self._note, "uplink", sent=self._down, coming=self._up)

    def edge(self, link: Link, began_s: float) -> Link:
        """The edge's end of it, which took since ``began_s`` to make."""
        self._note("edge", "connect", {"began_s": began_s})
        return _EndTap(link, self._note, "downlink", sent=self._up, coming=self._down)


class _EndTap(Tap):
    """One of two tapped ends; messages arrive in the order in which they were sent."""

    def __init__(self, link: Link, note: Note, arrives_by: str, *, sent: deque[float], coming: deque[float]) -> None:
        super().__init__(link)
        self._note = note
        self._arrives_by = arrives_by
        self._sent, self._coming = sent, coming

    def _leaves(self, sent_s: float) -> None:
        self._sent.append(sent_s)

    def _arrived(self, message: Message, size_bytes: int) -> None:
        data = {"sent_s": self._coming.popleft(), "bytes": size_bytes}
        self._note(self._arrives_by, type(message).__name__, data)


class _EdgeTap(Tap):
    """The edge's end of a link whose other end nobody listens at."""

    def __init__(self, link: Link, note: Note) -> None:
        super().__init__(link)
        self._note = note
        self._sent_s: list[float] = []  # when Open, and each Grow and Steer after it, left

    def _left(self, message: Message, sent_s: float, size_bytes: int) -> None:
        if isinstance(message, Open):
            self._sent_s = [sent_s]
        elif isinstance(message, Grow | Steer):
            self._sent_s.append(sent_s)
        self._note("uplink", type(message).__name__, {"sent_s": sent_s, "bytes": size_bytes})

    def _arrived(self, message: Message, size_bytes: int) -> None:
        data: dict[str, Any] = {"bytes": size_bytes}
        if isinstance(message, Commit):
            data |= {"heard": message.heard, "heard_s": message.heard_s, "waited_s": message.waited_s}
            if message.draft_us:
                data["draft_us"] = list(message.draft_us)
            if message.heard < len(self._sent_s):
                passed_s = asyncio.get_running_loop().time() - self._sent_s[message.heard]
                data["round_trip_s"] = max(0.0, passed_s - message.heard_s)
        elif isinstance(message, Refused):
            data["code"] = message.code
        self._note("downlink", type(message).__name__, data)
