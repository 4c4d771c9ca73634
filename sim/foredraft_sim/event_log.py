"""What happened in a simulation, one JSON object per line: the events of both ends, and every message.

    {"policy":"sync","seed":1,"request":0,"place":0,"t_s":1.5,"where":"edge","kind":"draft","data":{...}}

``where`` is ``edge`` or ``cloud`` (``place``: which device, which server), or ``uplink`` or
``downlink`` for a message of that device, at the time it arrived, with when it was sent in its data.
Which request something belongs to travels in a context variable, from the device to the tasks of
the cloud that serve it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import msgspec

from foredraft.core.events import Event
from foredraft.core.messages import Message
from foredraft.core.ports import Link

REQUEST: ContextVar[int] = ContextVar("request")

Note = Callable[[str, str, dict[str, Any]], None]
"""Told ``where``, ``kind`` and data of a message."""


class EventLog:
    """Takes events and holds them as lines."""

    def __init__(self, policy: str, seed: int) -> None:
        self._head = {"policy": policy, "seed": seed}
        self._encoder = msgspec.json.Encoder()
        self._lines = bytearray()

    @property
    def lines(self) -> bytes:
        """All of it, in the order in which it happened."""
        return bytes(self._lines)

    def observer(self, place: int) -> Callable[[Event], None]:
        """What takes the events of one device or one server."""

        def note(event: Event) -> None:
            self._write(place, event.t_s, event.where, event.kind, event.data)

        return note

    def taps(self, place: int) -> "Taps":
        """What notes the messages of one device."""

        def note(where: str, kind: str, data: dict[str, Any]) -> None:
            self._write(place, asyncio.get_running_loop().time(), where, kind, data)

        return Taps(note)

    def _write(self, place: int, t_s: float, where: str, kind: str, data: dict[str, Any]) -> None:
        at = {"request": REQUEST.get(), "place": place, "t_s": t_s, "where": where, "kind": kind, "data": data}
        self._lines += self._encoder.encode(self._head | at) + b"\n"


class Taps:
    """Listens on the links that a device makes, one after another."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._up: deque[float] = deque()  # when what is on its way was sent
        self._down: deque[float] = deque()

    def cloud(self, link: Link) -> Link:
        """The cloud's end of a new link."""
        self._up, self._down = deque(), deque()
        return _Tap(link, self._down, self._up, self._note, "uplink")

    def edge(self, link: Link) -> Link:
        """The edge's end of it."""
        return _Tap(link, self._up, self._down, self._note, "downlink")


class _Tap:
    """One end of a tapped link; messages arrive in the order in which they were sent."""

    def __init__(
        self,
        link: Link,
        sent: deque[float],
        coming: deque[float],
        note: Note,
        arrives_by: str,
    ) -> None:
        self._link = link
        self._sent, self._coming = sent, coming
        self._note = note
        self._arrives_by = arrives_by

    @property
    def bytes_sent(self) -> int:
        """The link's."""
        return self._link.bytes_sent

    @property
    def bytes_received(self) -> int:
        """The link's."""
        return self._link.bytes_received

    async def send(self, message: Message) -> None:
        """Send, and remember when."""
        self._sent.append(asyncio.get_running_loop().time())
        await self._link.send(message)

    def post(self, message: Message) -> bool:
        """Send, if that needs no waiting, and remember when."""
        now_s = asyncio.get_running_loop().time()
        self._sent.append(now_s)  # before it leaves: a link without delay may deliver at once
        if self._link.post(message):
            return True
        self._sent.pop()
        return False

    async def receive(self) -> Message:
        """Receive, and note it."""
        before = self._link.bytes_received
        message = await self._link.receive()
        data = {"sent_s": self._coming.popleft(), "bytes": self._link.bytes_received - before}
        self._note(self._arrives_by, type(message).__name__, data)
        return message

    async def close(self) -> None:
        """Close the link."""
        await self._link.close()
