"""Emulated links: ``core.ports.Link`` with the rate, delay, jitter, loss and outages of a profile.

Only the running event loop and named random streams are used, so a link works on a SimLoop and,
as a shaped link in one process, on any other loop. Messages are encoded and decoded, so what
arrives is never the object that was sent, and ``bytes_sent`` counts as on a real link; what the
emulated wire carries beyond that (TLS, TCP, IP) is in ``wire_bytes_sent``.

A message costs "busy until" arithmetic (``channel``) and one timer.
"""

import asyncio
import contextlib
import warnings
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path

from foredraft.core.messages import MAX_MESSAGE_BYTES, Message, decode, encode
from foredraft.core.signal import Signal
from foredraft.errors import LinkClosedError, ProtocolError, UnreachableError
from foredraft.links.framing import framed_bytes
from foredraft.profiles import Direction, LinkProfile
from foredraft_sim.channel import Channel, merged
from foredraft_sim.errors import ProfileRangeWarning
from foredraft_sim.streams import Streams
from foredraft_sim.traces import read_trace


class _Way:
    """One direction of one connection: what is on its way, and what has landed."""

    def __init__(self, channel: Channel, epoch_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._epoch_s = epoch_s
        self._flying: list[tuple[bytes | None, asyncio.TimerHandle]] = []  # None: the end
        self.landed: list[bytes] = []
        self._changed = Signal()  # something has landed, or nothing will any more; the receiver waits
        self._shut = False  # nothing more goes in
        self._shutting: asyncio.Event | None = None  # while somebody waits for room
        self._over = False  # nothing more comes out than has landed
        self._turn = asyncio.Lock()  # senders that wait for room keep their order
        self._waiting = 0
        self.on_end: Callable[[], None] | None = None  # called when the end has come; until it is over
        self.wire_bytes = 0

    def put_now(self, data: bytes) -> bool:
        """Send, if nobody waits in front and the channel's queue has room."""
        wire_bytes = self._channel.wire_bytes(len(data))
        if self._waiting or self._shut:
            return False
        if not self._channel.always_room and self._wait_s(wire_bytes) > 0.0:
            return False
        self._depart(data, wire_bytes)
        return True

    async def put(self, data: bytes) -> None:
        """Send; waits while the channel's queue is full. Raises LinkClosedError."""
        wire_bytes = self._channel.wire_bytes(len(data))
        if self._waiting or self._wait_s(wire_bytes) > 0.0:
            self._waiting += 1
            try:
                async with self._turn:
                    await self._room(wire_bytes)
            finally:
                self._waiting -= 1
        if self._shut:
            raise LinkClosedError("the link is closed")
        self._depart(data, wire_bytes)

    async def _room(self, wire_bytes: int) -> None:
        """Wait until the message fits into the channel's queue, or nothing goes in any more."""
        if self._shutting is None:
            self._shutting = asyncio.Event()
        while (wait_s := self._wait_s(wire_bytes)) > 0.0 and not self._shut:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._shutting.wait()

    def _wait_s(self, wire_bytes: int) -> float:
        now_s = self._loop.time() - self._epoch_s
        return self._channel.room_at(now_s, wire_bytes) - now_s

    def _depart(self, data: bytes | None, wire_bytes: int) -> None:
        self.wire_bytes += wire_bytes
        arrival_s = self._channel.send(self._loop.time() - self._epoch_s, wire_bytes)
        timer = self._loop.call_at(self._epoch_s + arrival_s, self._land)
        self._flying.append((data, timer))

    def _land(self) -> None:
        if not self._flying:  # cut at the very instant at which this was to land
            return
        # Timers of one instant may fire in any order; what lands is what was sent first.
        data, _ = self._flying.pop(0)
        if self._over:
            return
        if data is None:
            if self.on_end is not None:
                self.on_end()
            self._finish()
        else:
            self.landed.append(data)
        self._changed.set_from_callback()

    def landing(self) -> Awaitable[None]:
        """Wait until something may have landed; one receiver at a time. Raises LinkClosedError at the end."""
        if self._over:
            raise LinkClosedError("the link is closed")
        return self._changed.wait()

    def end(self) -> None:
        """The sender closes: the end travels behind what was sent before."""
        if not self._shut:
            self._depart(None, self._channel.wire_bytes(0))
            self.shut()

    def shut(self) -> None:
        """Nothing more goes in."""
        self._shut = True
        if self._shutting is not None:
            self._shutting.set()

    def _finish(self) -> None:
        """Nothing more comes out than has landed; the two ways of a connection let go of each other."""
        self._over = True
        self.on_end = None

    def deafen(self) -> None:
        """The receiver closes: nothing more comes out. The sender learns of it by the other way's end."""
        self._finish()
        self.landed.clear()
        self._changed.set()

    def drop(self) -> None:
        """The way is cut: nothing more goes in or comes out; what is on it is lost."""
        if not self._shut:
            self._channel.drop_queue()
        self.shut()
        self.deafen()
        for _, timer in self._flying:
            timer.cancel()
        self._flying.clear()


class SimLink:
    """One end of an emulated link. Implements ``core.ports.Link``; from a SimNetwork."""

    def __init__(self, outgoing: _Way, incoming: _Way, *, client: bool, least: int, most: int) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._client = client
        self._least_bytes, self._most_bytes = least, min(most, MAX_MESSAGE_BYTES)  # what the profile was made for
        self._bytes_sent = 0
        self._bytes_received = 0
        self.cut_timer: asyncio.TimerHandle | None = None  # for an outage that will cut the link
        incoming.on_end = outgoing.shut

    @property
    def bytes_sent(self) -> int:
        """Payload and WebSocket framing sent so far, as a real link counts them."""
        return self._bytes_sent

    @property
    def bytes_received(self) -> int:
        """Payload and WebSocket framing received so far."""
        return self._bytes_received

    @property
    def wire_bytes_sent(self) -> int:
        """Bytes that this end put on the emulated wire, the profile's framing included."""
        return self._outgoing.wire_bytes

    async def send(self, message: Message) -> None:
        """Send; waits while the link is full. Raises LinkClosedError, ProtocolError if it is too large."""
        await self.send_raw(encode(message))

    def post(self, message: Message) -> bool:
        """Send, if that needs no waiting. Raises ProtocolError if it is too large."""
        data = encode(message)
        if not self._least_bytes <= len(data) <= self._most_bytes:
            self._check(data)
        if not self._outgoing.put_now(data):
            return False
        self._bytes_sent += framed_bytes(len(data), masked=self._client)
        return True

    async def send_raw(self, data: bytes) -> None:
        """Send any bytes: how tests play a peer that breaks the protocol."""
        self._check(data)
        await self._outgoing.put(data)
        self._bytes_sent += framed_bytes(len(data), masked=self._client)

    def _check(self, data: bytes) -> None:
        if len(data) > MAX_MESSAGE_BYTES:
            raise ProtocolError(f"message of {len(data)} bytes, more than {MAX_MESSAGE_BYTES}")
        if not self._least_bytes <= len(data) <= self._most_bytes:
            self._warn(len(data))

    def _warn(self, payload_bytes: int) -> None:
        warnings.warn(
            f"a message of {payload_bytes} bytes is outside of what the link's profile was made for "
            f"({self._least_bytes} to {self._most_bytes} bytes): its times are extrapolated",
            ProfileRangeWarning,
            stacklevel=2,
        )
        self._least_bytes, self._most_bytes = 0, MAX_MESSAGE_BYTES  # once per link

    async def receive(self) -> Message:
        """The next message. Raises LinkClosedError at the end, ProtocolError for garbage."""
        incoming = self._incoming
        while not incoming.landed:
            await incoming.landing()
        data = incoming.landed.pop(0)
        self._bytes_received += framed_bytes(len(data), masked=not self._client)
        return decode(data)

    async def close(self) -> None:
        """Close. The other end still receives what was sent before, and then learns of it."""
        if self.cut_timer is not None:
            self.cut_timer.cancel()
        self._outgoing.end()
        self._incoming.deafen()

    def cut(self) -> None:
        """The link breaks: both ends are closed at once and what was on the way is lost."""
        self._outgoing.drop()
        self._incoming.drop()


class SimNetwork:
    """The way between one edge and the cloud, over which connections are made one after another.

    Make it while the loop runs: the profile's outages and traces count from then on. Each
    direction has its own streams, "up" and "down". ``accept`` is called with the cloud's end of
    each connection that ``connect`` makes. Raises ProfileError for a trace that cannot be used.
    """

    def __init__(
        self, profile: LinkProfile, streams: Streams, accept: Callable[[SimLink], object] | None = None
    ) -> None:
        self._profile = profile
        self._accept = accept
        self._loop = asyncio.get_running_loop()
        self._epoch_s = self._loop.time()
        self._cuts = merged([outage for outage in profile.outages if outage.cuts])
        self._up = self._channel(profile.up, streams.child("up"))
        self._down = self._channel(profile.down, streams.child("down"))

    def _channel(self, direction: Direction, streams: Streams) -> Channel:
        profile = self._profile
        return Channel(
            direction,
            streams,
            trace=None if direction.trace is None else _trace(_folder(profile) / direction.trace),
            framing=profile.framing,
            loss=profile.loss,
            outages=profile.outages,
        )

    def pair(self) -> tuple[SimLink, SimLink]:
        """The edge's and the cloud's end of a connection that is there at once."""
        up, down = _Way(self._up, self._epoch_s), _Way(self._down, self._epoch_s)
        least, most = self._profile.range.message_bytes
        edge = SimLink(up, down, client=True, least=least, most=most)
        cloud = SimLink(down, up, client=False, least=least, most=most)
        now_s = self._loop.time() - self._epoch_s
        for outage in self._cuts:
            if outage.start_s >= now_s:
                timer = self._loop.call_at(self._epoch_s + outage.start_s, edge.cut)
                edge.cut_timer = cloud.cut_timer = timer
                break
        return edge, cloud

    async def connect(self) -> SimLink:
        """The edge's end of a new connection, after the round trips, of mean length, that it takes.

        Waits while an outage lasts. Raises UnreachableError in an outage that cuts.
        """
        await self._pass_outages()
        setup = self._profile.setup
        if setup is not None:
            await asyncio.sleep(setup.round_trips * self._profile.round_trip_s)
            await self._pass_outages()
        edge, cloud = self.pair()
        if self._accept is not None:
            self._accept(cloud)
        return edge

    async def _pass_outages(self) -> None:
        now_s = self._loop.time() - self._epoch_s
        for outage in self._cuts:
            if outage.start_s <= now_s < outage.start_s + outage.duration_s:
                left_s = outage.start_s + outage.duration_s - now_s
                raise UnreachableError(f"the network is down for another {left_s:g} s")
        await asyncio.sleep(self._up.out_of_outage_s(now_s) - now_s)


def _folder(profile: LinkProfile) -> Path:
    """What the name of a profile's trace is relative to."""
    return Path() if profile.path is None else profile.path.parent


_trace = lru_cache(maxsize=16)(read_trace)  # a thousand devices may share one


def sim_link(profile: LinkProfile, streams: Streams) -> tuple[SimLink, SimLink]:
    """The edge's and the cloud's end of an emulated link, open at once."""
    return SimNetwork(profile, streams).pair()
