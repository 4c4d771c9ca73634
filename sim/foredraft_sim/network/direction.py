"""One direction of one connection over an emulated link: what is on its way, and what has landed."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextvars import copy_context

from foredraft.errors import LinkClosedError
from foredraft.protocol.signal import Signal
from foredraft_sim.network.channel import Channel


class Way:
    """One direction of one connection: what is on its way, and what has landed."""

    def __init__(self, channel: Channel, epoch_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._epoch_s = epoch_s
        self._flying: list[tuple[bytes | None, asyncio.TimerHandle]] = []  # None: the end
        self.landed: list[bytes] = []
        self._changed = Signal()  # something has landed, or nothing will any more; the receiver waits
        self.hear: Callable[[bytes], bool] | None = None  # takes what lands; whether the receiver goes on then
        self._context = copy_context()  # what lands is taken in the context in which the connection was made
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
        timer = self._loop.call_at(self._epoch_s + arrival_s, self._land, context=self._context)
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
        elif self.hear is None:
            self.landed.append(data)
        elif not self.hear(data):
            return
        self._changed.set()

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
