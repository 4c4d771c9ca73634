"""An emulated device: calls go through it one after another, first come, first served.

A call has the device to itself from its start to its end, or shares it with those next in
line, where their pricing lets them run as one batch. A call that is given up frees
the device only when the segment in flight is over.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from foredraft.errors import ForedraftError

TICK_S = 1e-9  # below the resolution of any loop's clock; "now", as far as anyone can tell


class Pricing(Protocol):
    """What calls cost; calls of one pricing may form a batch."""

    def batch_s(self, works: Sequence["Work"], idle_s: float) -> float:
        """Seconds that these calls take as one batch after the device was idle; asked once, when it starts."""

    def fits(self, works: Sequence["Work"]) -> bool:
        """Whether these calls may run as one batch."""


class Work(msgspec.Struct, frozen=True, gc=False):
    """One call, as its device sees it. ``kind`` is "pass", "prefill" or "step"."""

    kind: str
    new_tokens: int
    context: int
    exits: int
    pricing: Pricing


class Turn(msgspec.Struct, eq=False):
    """The time that a batch of calls has on the device: ``start_s`` to ``end_s`` on the loop's clock.

    The end moves away while the device is taken by something else. ``calls`` have not left it yet; those that have
    need it until ``free_s``.
    """

    device: "Device"
    start_s: float
    end_s: float
    calls: int
    free_s: float = 0.0

    async def over(self) -> float:
        """Return no earlier than at its end, and hardly later; how late it was already when asked."""
        device = self.device
        while True:
            end_s = self.end_s
            late_s = device.now() - end_s
            if late_s < -device.spin_s:
                await asyncio.sleep(-late_s - device.spin_s)
            if device.spin_s:
                await device.poll(end_s)
            if self.end_s <= end_s:
                return late_s

    def leave(self, at_s: float | None = None) -> None:
        """One call needs the device until ``at_s`` (default: the end), or until now if that is later. Once per call."""
        at_s = self.end_s if at_s is None else at_s
        if self.free_s > at_s:
            at_s = self.free_s
        if self.calls == 1:
            self.device.free_at(at_s)
        else:
            self.calls, self.free_s = self.calls - 1, at_s


def fine_clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The loop's clock. uvloop's counts whole milliseconds of the system's, so that is read itself."""
    return time.monotonic if type(loop).__module__.partition(".")[0] == "uvloop" else loop.time


class Device:
    """One device. Engines that run on the same one share the object.

    ``spin_s``: how long before the end of a turn who waits for it begins to poll, because
    timers of real loops come up to a millisecond late. 0 leaves it to the loop's timers, which
    are exact in simulated time.
    """

    loop: asyncio.AbstractEventLoop  # since the first look at the clock

    def __init__(self, *, spin_s: float = 1e-3) -> None:
        self.spin_s = spin_s
        self.now: Callable[[], float] = self._first_now
        """The running loop's time, in seconds."""
        self._waiting: deque[tuple[Work, asyncio.Future[Turn]]] = deque()
        self._turn: Turn | None = None  # while it is busy
        self._free_since_s = -math.inf
        self._taken_until_s = -math.inf
        self._busy_s = 0.0
        self.calls = 0
        self.batches = 0

    def _first_now(self) -> float:
        self.loop = asyncio.get_running_loop()
        self.now = fine_clock(self.loop)
        return self.now()

    @property
    def busy_s(self) -> float:
        """Seconds that it was occupied so far, the call in flight included."""
        running_s = self.now() - self._turn.start_s if self._turn is not None else 0.0
        return self._busy_s + running_s

    def start(self, work: Work) -> Turn | None:
        """A turn at once, if the device is free; the caller must leave it. Raises what the pricing raises."""
        return None if self._turn is not None or self._waiting else self._begin((work,))

    async def enter(self, work: Work) -> Turn:
        """Wait for the device; the caller must leave the turn. Raises what the pricing raises."""
        if (turn := self.start(work)) is not None:
            return turn
        waiter: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, waiter))
        if self._turn is None:
            self._grant()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().leave(0.0)  # granted in the moment of the cancellation, not begun
            waiter.cancel()
            raise

    def free_at(self, at_s: float) -> None:
        """The last call is over at ``at_s``: from then on the next may start."""
        now_s = self.now()
        if at_s - now_s > TICK_S:
            self.loop.call_later(at_s - now_s, self.free_at, at_s)
            return
        if self._turn is not None:
            self._busy_s += now_s - self._turn.start_s
        self._turn = None
        self._free_since_s = now_s
        if self._waiting:
            self._grant()

    def take(self, seconds: float) -> None:
        """Something else takes the device for so long: the call in flight ends later, or the next one does."""
        if self._turn is not None:
            self._turn.end_s += seconds
        else:
            self._taken_until_s = max(self._taken_until_s, self.now()) + seconds

    async def poll(self, due_s: float) -> None:
        """Wait for a moment that is near, with turns of the loop for others."""
        while (left_s := due_s - self.now()) > TICK_S:
            before_s = self.now()
            await asyncio.sleep(0)
            if self.now() == before_s:  # a clock that moves for timers only
                await asyncio.sleep(left_s)

    def _grant(self) -> None:
        """Start the first waiting call, with those that may share its batch."""
        while self._waiting:
            works, waiters = self._next_batch()
            if not works:
                return
            try:
                turn = self._begin(works)
            except ForedraftError as error:
                for waiter in waiters:
                    waiter.set_exception(error)
                continue
            for waiter in waiters:
                waiter.set_result(turn)
            return

    def _begin(self, works: Sequence[Work]) -> Turn:
        """Occupy the device with a batch. Raises what the pricing raises, and stays free then."""
        now_s = self.now()
        duration_s = works[0].pricing.batch_s(works, now_s - self._free_since_s)
        if self._taken_until_s > now_s:
            duration_s += self._taken_until_s - now_s
        calls = len(works)
        self.calls += calls
        self.batches += 1
        self._turn = turn = Turn(self, now_s, now_s + duration_s, calls)
        return turn

    def _next_batch(self) -> tuple[list[Work], list["asyncio.Future[Turn]"]]:
        """Take the first waiting call, and those next in line for as long as they fit in with it."""
        works: list[Work] = []
        waiters: list[asyncio.Future[Turn]] = []
        while self._waiting:
            work, waiter = self._waiting[0]
            if not waiter.done():
                if works and not _joins(work, works):
                    break
                works.append(work)
                waiters.append(waiter)
            self._waiting.popleft()
        return works, waiters


def _joins(work: Work, works: list[Work]) -> bool:
    first = works[0]
    same = work.kind == first.kind and work.pricing is first.pricing
    return same and first.pricing.fits([*works, work])
