"""Links that misbehave: messages are delayed, doubled, repeated late, and overtake each other; the link is cut.

Everything random is drawn from one generator, so a storm with its seed is one schedule.
"""

import asyncio
from dataclasses import dataclass, field
from random import Random

from foredraft.errors import LinkClosedError
from foredraft.links.websocket import STALL_S
from foredraft.protocol import messages
from foredraft.protocol.messages import Message, decode, encode
from foredraft.protocol.ports import Link

RELIABLE = (messages.Hello, messages.Ready, messages.Open, messages.Close)
"""What nothing overtakes: the port promises an ordered link, and without these there is no session."""

_TICK_S = 1e-9
"""Between messages that stay in order: timers of one instant may run in any."""


@dataclass(frozen=True)
class Weather:
    """How a link misbehaves; probabilities are per message, ``cuts`` bounds how often it is cut.

    ``room``: messages that may be on their way before a sender waits; 0 for any number. ``at_once``: how often a
    message that needs no waiting is sent without a turn of the loop.
    """

    delay_s: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    stale: float = 0.0
    cut: float = 0.0
    cuts: int = 0
    room: int = 0
    at_once: float = 0.0


CALM = Weather()


@dataclass
class Storm:
    """What the links of one session, or one device, share: the generator, all that was ever said, the cuts so far."""

    weather: Weather
    rng: Random
    cuts: int = 0
    said: dict[bool, list[bytes]] = field(default_factory=lambda: {True: [], False: []})


class StormyLink(Link):
    """One end of a link in a storm. Implements ``protocol.ports.Link``."""

    bytes_sent = 0
    bytes_received = 0
    other: "StormyLink"

    def __init__(self, storm: Storm, said: dict[bool, list[bytes]], *, up: bool) -> None:
        self._storm, self._said = storm, said[up]
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._on_the_way = 0  # messages to this end that nobody has received
        self._taken = asyncio.Event()
        self._closed = False
        self._last_s = 0.0
        self._floor_s = 0.0  # nothing lands before this

    async def send(self, message: Message) -> None:
        """Send; waits while the link is full, and cuts it after ``STALL_S`` of that. Raises LinkClosedError."""
        await self.send_raw(encode(message), reliable=isinstance(message, RELIABLE))

    async def send_raw(self, data: bytes, *, reliable: bool = True) -> None:
        """Send any bytes: how a peer that breaks the protocol is played. Raises LinkClosedError."""
        await asyncio.sleep(0)
        while self._is_full and not self._closed:
            await self._wait_for_room()
        if self._closed:
            raise LinkClosedError("closed")
        self._say(data, reliable=reliable)

    def post(self, message: Message) -> bool:
        """Send at once, now and then."""
        storm = self._storm
        if self._closed or self._is_full or not storm.weather.at_once or storm.rng.random() >= storm.weather.at_once:
            return False
        self._say(encode(message), reliable=isinstance(message, RELIABLE))
        return True

    @property
    def _is_full(self) -> bool:
        return 0 < self._storm.weather.room <= self.other._on_the_way

    async def _wait_for_room(self) -> None:
        self.other._taken.clear()
        try:
            async with asyncio.timeout(STALL_S):
                await self.other._taken.wait()
        except TimeoutError:
            self.cut()

    def _say(self, data: bytes, *, reliable: bool) -> None:
        storm, rng, weather = self._storm, self._storm.rng, self._storm.weather
        self._land(data, may_overtake=not reliable and rng.random() < weather.reorder)
        if reliable:
            self._floor_s = self._last_s + _TICK_S
        if rng.random() < weather.duplicate:
            self._land(data, may_overtake=False)
        said = self._said
        if said and not reliable and rng.random() < weather.stale:
            self._land(rng.choice(said), may_overtake=False)
        said.append(data)
        if storm.cuts < weather.cuts and rng.random() < weather.cut:
            storm.cuts += 1
            asyncio.get_running_loop().call_later(rng.random() * weather.delay_s, self.cut)

    def _land(self, data: bytes, *, may_overtake: bool) -> None:
        loop, rng = asyncio.get_running_loop(), self._storm.rng
        at_s = max(self._floor_s, loop.time() + rng.random() * self._storm.weather.delay_s)
        if not may_overtake:
            at_s = self._last_s = max(self._last_s + _TICK_S, at_s)
        self.other._on_the_way += 1
        loop.call_at(at_s, self.other._inbox.put_nowait, data)

    async def receive(self) -> Message:
        """The next message. Raises LinkClosedError, ProtocolError."""
        data = None if self._closed else await self._inbox.get()
        if data is None:
            self._closed = True
            raise LinkClosedError("closed")
        self._on_the_way -= 1
        self._taken.set()
        return decode(data)

    async def close(self) -> None:
        """What was sent before still arrives at the other end."""
        if not self._closed:
            self._close_here()
            loop = asyncio.get_running_loop()
            loop.call_at(max(self._last_s + _TICK_S, loop.time()), self.other._inbox.put_nowait, None)

    def cut(self) -> None:
        """Both ends are closed; what was on its way is lost."""
        for end in (self, self.other):
            end._close_here()

    def _close_here(self) -> None:
        self._closed = True
        self._inbox.put_nowait(None)
        self._taken.set()
        self.other._taken.set()  # whoever waits here for room there

    def stall(self, until_s: float) -> None:
        """Nothing that is sent from now on lands before that moment, either way."""
        for end in (self, self.other):
            end._floor_s = max(end._floor_s, until_s)


def stormy_link(storm: Storm, *, remembers: bool = True) -> tuple[StormyLink, StormyLink]:
    """The edge's end of a link and the cloud's. ``remembers``: late messages may be those of the links before, too."""
    said = storm.said if remembers else {True: [], False: []}
    edge, cloud = StormyLink(storm, said, up=True), StormyLink(storm, said, up=False)
    edge.other, cloud.other = cloud, edge
    return edge, cloud
