"""Emulated links: ``protocol.ports.Link`` with the rate, delay, jitter, loss and outages of a profile.

Only the running event loop and named random streams are used, so a link works on a SimLoop and,
as a shaped link in one process, on any other loop. Messages are encoded and decoded, so what
arrives is never the object that was sent, and ``bytes_sent`` counts as on a real link; what the
emulated wire carries beyond that (TLS, TCP, IP) is in ``wire_bytes_sent``.

A message costs "busy until" arithmetic (``channel``) and one timer.
"""

import asyncio
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from foredraft.errors import ProtocolError, UnreachableError
from foredraft.links.framing import framed_bytes
from foredraft.profiles import Direction, LinkProfile
from foredraft.protocol.messages import MAX_MESSAGE_BYTES, Message, decode, encode
from foredraft.protocol.ports import Link
from foredraft_sim.errors import ProfileRangeWarning
from foredraft_sim.network.channel import Channel, merged
from foredraft_sim.network.direction import Way
from foredraft_sim.network.traces import read_trace
from foredraft_sim.streams import Streams
from foredraft_sim.workers.files import brought


class SimLink(Link):
    """One end of an emulated link. Implements ``protocol.ports.Link``; from a SimNetwork."""

    def __init__(self, outgoing: Way, incoming: Way, *, client: bool, least: int, most: int) -> None:
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
        return self._decoded(incoming.landed.pop(0))

    def _decoded(self, data: bytes) -> Message:
        self._bytes_received += framed_bytes(len(data), masked=not self._client)
        return decode(data)

    async def listen(self, take: Callable[[Message], bool]) -> None:
        """Hand what lands to ``take`` at that moment, until it says False. Raises as ``receive`` and ``take``."""
        incoming = self._incoming
        failed: list[Exception] = []
        enough = False

        def hear(data: bytes) -> bool:
            nonlocal enough
            try:
                enough = not take(self._decoded(data))
            except Exception as error:
                failed.append(error)
                enough = True
            if enough:
                incoming.hear = None  # what lands before the task goes on is for the next who listens
            return enough

        while not enough and incoming.landed:
            hear(incoming.landed.pop(0))
        try:
            while not enough:
                incoming.hear = hear
                await incoming.landing()
        finally:
            incoming.hear = None
        if failed:
            raise failed.pop()  # not kept: its traceback leads here

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
            trace=None if direction.trace is None else _trace(brought(_folder(profile) / direction.trace)),
            framing=profile.framing,
            loss=profile.loss,
            outages=profile.outages,
        )

    def pair(self) -> tuple[SimLink, SimLink]:
        """The edge's and the cloud's end of a connection that is there at once."""
        up, down = Way(self._up, self._epoch_s), Way(self._down, self._epoch_s)
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
