"""The way in, before a key is shown: connections are counted by address, what they send is bounded, and who shows
nothing makes room for who comes.

TLS begins here, once an address may have a connection at all: a handshake is what a stranger costs most.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

from foredraft.server.bounds import Bounds
from foredraft.server.strangers import FULL, MOVED, SILENT, Strangers, address_of


class Entrance:
    """All connections of a server. ``new_protocol``: makes what answers one. ``places``: for how many there is room.

    ``turned_away``: is told of each that was, and why.
    """

    def __init__(
        self,
        bounds: Bounds,
        places: int,
        new_protocol: Callable[[], asyncio.Protocol],
        turned_away: Callable[[str], None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.bounds, self.tls, self.new_protocol = bounds, tls, new_protocol
        self._places, self._turned_away = places, turned_away
        self._inside: set[Visitor] = set()
        self._by_protocol: dict[asyncio.BaseProtocol, Visitor] = {}
        self._strangers = Strangers[Visitor](bounds.strangers, bounds.strangers_per_s)

    def visitor(self) -> "Visitor":
        """The protocol of one more connection."""
        return Visitor(self)

    def admits(self, visitor: "Visitor", now_s: float) -> bool:
        """Whether there is a place for a newcomer; it may be that of another stranger."""
        why = self._strangers.refuses(visitor.address, now_s)
        if not why and len(self._inside) >= self._places:
            gives_way = self._strangers.first_to_go(visitor.address)
            if gives_way is None:
                why = FULL
            else:
                self.drop(gives_way, MOVED)
        if why:
            self._turned_away(why)
            return False
        self._inside.add(visitor)
        self._strangers.add(visitor, visitor.address)
        return True

    def entered(self, visitor: "Visitor", protocol: asyncio.BaseProtocol) -> None:
        """Its requests come by this protocol from now on."""
        self._by_protocol[protocol] = visitor

    def knows(self, protocol: asyncio.BaseProtocol) -> bool:
        """Whether a key was shown on the connection of this protocol."""
        visitor = self._by_protocol.get(protocol)
        return visitor is None or visitor.known

    def key_shown(self, protocol: asyncio.BaseProtocol) -> None:
        """Whoever this is, it is no stranger any more."""
        visitor = self._by_protocol.get(protocol)
        if visitor is not None and not visitor.known:
            self._strangers.remove(visitor, visitor.address)
            visitor.welcome()

    def drop(self, visitor: "Visitor", why: str = SILENT) -> None:
        """End the connection of a stranger."""
        self._turned_away(why)
        self.left(visitor)
        visitor.abort()

    def left(self, visitor: "Visitor", protocol: asyncio.BaseProtocol | None = None) -> None:
        """Its place is free."""
        self._inside.discard(visitor)
        self._strangers.remove(visitor, visitor.address)
        if protocol is not None:
            self._by_protocol.pop(protocol, None)

    def close(self) -> None:
        """End what has not come in yet; who is inside leaves as the server does."""
        for visitor in [one for one in self._inside if not one.is_in]:
            self.left(visitor)
            visitor.abort()


class Visitor(asyncio.Protocol):
    """One connection. What a stranger sends is passed on as far as it may go; the rest waits until a key is shown."""

    _transport: asyncio.Transport

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._inner: asyncio.Protocol | None = None
        self._securing: asyncio.Task[None] | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._room_bytes = entrance.bounds.stranger_bytes
        self._held = bytearray()
        self.address = ""
        self.known = False

    @property
    def is_in(self) -> bool:
        """Whether its requests are answered, or will be."""
        return self._inner is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody knocks."""
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self.address = address_of(transport.get_extra_info("peername"))
        loop = asyncio.get_running_loop()
        if not self._entrance.admits(self, loop.time()):
            transport.abort()
            return
        self._silence = loop.call_later(self._entrance.bounds.silence_s, self._entrance.drop, self)
        if (tls := self._entrance.tls) is None:
            self._enter(transport)
        else:
            most_s = self._entrance.bounds.silence_s
            handshake = _Begun(loop.start_tls(transport, self, tls, server_side=True, ssl_handshake_timeout=most_s))
            self._securing = loop.create_task(self._secure(transport, handshake), name="TLS")

    async def _secure(self, transport: asyncio.Transport, handshake: "_Begun") -> None:
        try:
            secured = await handshake
        except OSError:  # ssl's errors are such; it is the peer's doing
            self.connection_lost(None)
            transport.abort()
            return
        if secured is not None:
            self._enter(secured)

    def _enter(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._inner = self._entrance.new_protocol()
        self._entrance.entered(self, self._inner)
        self._inner.connection_made(transport)
        if self._held:  # it came with the end of the handshake
            held, self._held = bytes(self._held), bytearray()
            self.data_received(held)

    def welcome(self) -> None:
        """It has shown a key: what waited, and all that comes, is passed on."""
        self.known = True
        self._end_silence()
        if self._held and self._inner is not None:
            held, self._held = bytes(self._held), bytearray()
            self._transport.resume_reading()  # first: the server may have it paused again
            self._inner.data_received(held)

    def data_received(self, data: bytes) -> None:
        """Something came."""
        if not self.known:
            data = self._let_in(data)
        if data and self._inner is not None:
            self._inner.data_received(data)

    def _let_in(self, data: bytes) -> bytes:
        """What of a stranger's words is passed on now; the rest is held."""
        room = self._room_bytes if self.is_in else 0
        self._room_bytes -= len(data[:room])
        if len(data) > room:
            self._held += data[room:]
            if self.is_in:
                self._transport.pause_reading()
        return data[:room]

    def eof_received(self) -> bool | None:
        """It sends no more."""
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        """It does not keep up."""
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone."""
        self._end_silence()
        inner, self._inner = self._inner, None
        self._entrance.left(self, inner)
        if inner is not None:
            inner.connection_lost(error)

    def abort(self) -> None:
        """End it at once."""
        self._end_silence()
        if self._securing is not None:
            self._securing.cancel()
        self._transport.abort()

    def _end_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()


class _Begun:
    """An awaitable that is under way before anybody awaits it.

    TLS must have the connection before anything is read from it, and uvloop reads before a task would have its turn.
    """

    def __init__(self, work: Coroutine[Any, Any, asyncio.Transport | None]) -> None:
        self._work = work
        self._first = work.send(None)

    def __await__(self) -> Generator[Any, Any, asyncio.Transport | None]:
        yield self._first
        return (yield from self._work.__await__())
