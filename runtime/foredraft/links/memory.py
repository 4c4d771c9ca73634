"""A link within one process: two ends, two bounded queues, no time of its own.

Messages are encoded and decoded as on a real link, so what arrives is never the object that
was sent, and bytes count as they would over a WebSocket.
"""

import asyncio
from collections import deque

from foredraft.errors import LinkClosedError, ProtocolError
from foredraft.links.framing import framed_bytes
from foredraft.protocol.messages import MAX_MESSAGE_BYTES, Message, decode, encode
from foredraft.protocol.ports import Link


class _Pipe:
    """One direction: a bounded queue that can end."""

    def __init__(self, capacity: int) -> None:
        self._queue: deque[bytes] = deque()
        self._capacity = capacity
        self._ended = False
        self._room = asyncio.Event()
        self._room.set()
        self._filled = asyncio.Event()
        self._turn = asyncio.Lock()  # senders that wait for room keep their order

    async def put(self, data: bytes) -> None:
        async with self._turn:
            await self._room.wait()
            if self._ended:
                raise LinkClosedError("the link is closed")
            self._append(data)

    def put_now(self, data: bytes) -> bool:
        """Put, if nobody is in front and there is room."""
        if self._ended or self._turn.locked() or not self._room.is_set():
            return False
        self._append(data)
        return True

    def _append(self, data: bytes) -> None:
        self._queue.append(data)
        self._filled.set()
        if len(self._queue) >= self._capacity:
            self._room.clear()

    async def get(self) -> bytes:
        await self._filled.wait()
        if not self._queue:
            raise LinkClosedError("the link is closed")
        data = self._queue.popleft()
        self._room.set()
        if not self._queue and not self._ended:
            self._filled.clear()
        return data

    def end(self, *, drop: bool) -> None:
        """Nothing more goes in; what is queued still comes out unless it is dropped."""
        self._ended = True
        if drop:
            self._queue.clear()
        self._room.set()
        self._filled.set()


class MemoryLink(Link):
    """One end of an in-memory link; see ``memory_link``. Implements ``protocol.ports.Link``."""

    def __init__(self, outgoing: _Pipe, incoming: _Pipe, *, client: bool) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._client = client
        self._bytes_sent = 0
        self._bytes_received = 0

    @property
    def bytes_sent(self) -> int:
        """Payload and WebSocket framing sent so far, as a real link counts them."""
        return self._bytes_sent

    @property
    def bytes_received(self) -> int:
        """Payload and WebSocket framing received so far."""
        return self._bytes_received

    async def send(self, message: Message) -> None:
        """Queue the message; waits while the queue is full. Raises LinkClosedError, ProtocolError."""
        await self.send_raw(encode(message))

    def post(self, message: Message) -> bool:
        """Queue the message, if that needs no waiting. Raises ProtocolError."""
        data = _sized(encode(message))
        if not self._outgoing.put_now(data):
            return False
        self._bytes_sent += framed_bytes(len(data), masked=self._client)
        return True

    async def send_raw(self, data: bytes) -> None:
        """Queue any bytes: how tests and examples play a peer that breaks the protocol."""
        await self._outgoing.put(_sized(data))
        self._bytes_sent += framed_bytes(len(data), masked=self._client)

    async def receive(self) -> Message:
        """The next message. Raises LinkClosedError at the end, ProtocolError for garbage."""
        data = await self._incoming.get()
        self._bytes_received += framed_bytes(len(data), masked=not self._client)
        return decode(data)

    async def close(self) -> None:
        """End both directions. The other end still receives what was sent before."""
        self._outgoing.end(drop=False)
        self._incoming.end(drop=True)

    def cut(self) -> None:
        """The cable is cut: both ends are closed and what was on the way is lost."""
        self._outgoing.end(drop=True)
        self._incoming.end(drop=True)


def _sized(data: bytes) -> bytes:
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"message of {len(data)} bytes, more than {MAX_MESSAGE_BYTES}")
    return data


def memory_link(capacity: int = 64) -> tuple[MemoryLink, MemoryLink]:
    """The edge's end and the cloud's end of a link; ``capacity`` messages fit in each direction."""
    if capacity < 1:
        raise ValueError(f"capacity is {capacity}; a link holds at least one message")
    up, down = _Pipe(capacity), _Pipe(capacity)
    return MemoryLink(up, down, client=True), MemoryLink(down, up, client=False)
