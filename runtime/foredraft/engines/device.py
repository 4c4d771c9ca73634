"""An emulated device: calls go through it one after another, the most urgent first (``urgency``).

Where their pricing lets them, all calls that wait when it becomes free run as one forward, by the rule of the real
engine (``batching``): a long prompt goes through it chunk by chunk, beside the others. Each call else has the
device to itself from its start to its end. A call that is given up frees the device when the layer in flight is over.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from foredraft.engines.batching import Waiting
from foredraft.engines.shares import Shares
from foredraft.engines.urgency import turn_s
from foredraft.errors import ForedraftError

TICK_S = 1e-9  # below the resolution of any loop's clock; "now", as far as anyone can tell


class Pricing(Protocol):
    """What calls cost; calls of one pricing may form a batch, if it ``batches``.

    ``chunk``: by how many rows of long trunks a forward may delay others.
    """

    @property
    def batches(self) -> bool:
        """Whether calls share forwards at all."""

    @property
    def chunk(self) -> int:
        """As ``batching.choose`` takes it."""

    def batch_s(self, works: Sequence["Work"], idle_s: float) -> float:
        """Seconds that these calls take as one batch after the device was idle; asked once, when it starts."""

    def fits(self, works: Sequence["Work"]) -> bool:
        """Whether these calls may run as one batch."""


class Work(msgspec.Struct, gc=False):
    """What is left of a call, as its device sees it. ``kind`` is "pass", "prefill" or "step".

    ``tree``: how many of the new tokens are draft nodes, which run with the last of the others. ``began_s``: when it
    got the device; ``earlier_s``: how long the forwards took that ran the parts of it that are behind. ``owner``: whose
    it is (``shares``). ``due_s``: when it is wanted at the latest, ``asked_s``: when it came, by the loop's clock.
    """

    kind: str
    new_tokens: int
    context: int
    exits: int
    pricing: Pricing
    tree: int = 0
    began_s: float = -1.0
    earlier_s: float = 0.0
    owner: str = ""
    due_s: float = math.inf
    asked_s: float = 0.0

    def part(self, tokens: int) -> "Work":
        """The next so many tokens of its trunk."""
        return Work("prefill", tokens, self.context, 0, self.pricing)

    def is_past(self, tokens: int, turn: "Turn") -> None:
        """So many tokens of its trunk run in this turn."""
        if self.began_s < 0.0:
            self.began_s = turn.start_s
        self.new_tokens -= tokens
        self.context += tokens
        self.earlier_s += turn.end_s - turn.start_s


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
        if at_s > self.free_s:
            self.free_s = at_s
        self.calls -= 1
        if not self.calls:
            self.device.free(self)


def fine_clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The loop's clock. uvloop's counts whole milliseconds of the system's, so that is read itself."""
    return time.monotonic if type(loop).__module__.partition(".")[0] == "uvloop" else loop.time


_Chosen = tuple[Work, "asyncio.Future[Turn]", int, bool]
"""A call, who waits for it, how much of its trunk runs, and whether that is the whole of it."""


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
        self.shares = Shares()
        self._waiting: list[tuple[Work, asyncio.Future[Turn]]] = []
        self._turn: Turn | None = None  # while it is busy
        self._granting = False  # as soon as all that is ready now has run
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
        """A turn at once, if the device is free; the caller must leave it. Raises what the pricing raises.

        A call that may share its forward is never begun at once: who is ready now may want to come along.
        """
        if self._turn is not None or self._waiting or work.pricing.batches:
            return None
        return self._begin((work,))

    async def enter(self, work: Work) -> Turn:
        """Wait for the device, for the last forward of the call if it takes several; the caller must leave the turn.

        Raises what the pricing raises.
        """
        if (turn := self.start(work)) is not None:
            return turn
        waiter: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        work.asked_s = self.now()  # the loop is known from then on
        self._waiting.append((work, waiter))
        if self._turn is None:
            self._next()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().leave(0.0)  # granted in the moment of the cancellation, not begun
            waiter.cancel()
            raise

    def free(self, turn: Turn) -> None:
        """All calls of a turn have left it: when nobody needs the device any longer, the next may start."""
        now_s = self.now()
        if turn.free_s - now_s > TICK_S:
            self.loop.call_later(turn.free_s - now_s, self.free, turn)
            return
        self._busy_s += now_s - turn.start_s
        self._turn = None
        self._free_since_s = now_s
        if self._waiting:
            self._next()

    def take(self, seconds: float) -> None:
        """Something else takes the device for so long: the call in flight ends later, or the next one does."""
        turn, now_s = self._turn, self.now()
        if turn is None:
            self._taken_until_s = max(self._taken_until_s, now_s) + seconds
            return
        turn.end_s += seconds
        if turn.free_s > now_s:
            turn.free_s += seconds

    async def poll(self, due_s: float) -> None:
        """Wait for a moment that is near, with turns of the loop for others."""
        while (left_s := due_s - self.now()) > TICK_S:
            before_s = self.now()
            await asyncio.sleep(0)
            if self.now() == before_s:  # a clock that moves for timers only
                await asyncio.sleep(left_s)

    def _next(self) -> None:
        """The device is free and somebody waits: the next turn begins, where calls share it after all that is ready."""
        if not self._waiting[0][0].pricing.batches:
            self._grant()
        elif not self._granting:
            self._granting = True
            self.loop.call_soon(self._grant)

    def _grant(self) -> None:
        """Start the first waiting call, with those that share its forward."""
        self._granting = False
        while self._turn is None and (chosen := self._chosen()):
            try:
                turn = self._begin([work if whole else work.part(tokens) for work, _, tokens, whole in chosen])
            except ForedraftError as error:
                for _, waiter, _, _ in chosen:
                    waiter.set_exception(error)
                continue
            for work, waiter, tokens, whole in chosen:
                if whole:
                    waiter.set_result(turn)
                else:
                    work.is_past(tokens, turn)
                    turn.leave()

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

    def _chosen(self) -> list[_Chosen]:
        """Of those that wait, the most urgent first: who runs next, as far as their pricing lets them share a forward.

        A call that runs to its end does not wait any more.
        """
        waiting = self._waiting = [(work, waiter) for work, waiter in self._waiting if not waiter.done()]
        if not waiting:
            return []
        if len(waiting) > 1:
            waiting.sort(key=lambda one: turn_s(one[0].due_s, one[0].asked_s))
        pricing = waiting[0][0].pricing
        if not pricing.batches:
            work, waiter = waiting.pop(0)
            return [(work, waiter, work.new_tokens, True)]
        same = [one for one in waiting if one[0].pricing is pricing]
        calls = [Waiting(work.new_tokens - work.tree, work.tree, work.kind == "pass", work.owner) for work, _ in same]
        chosen = [(*same[share.call], share.trunk, share.whole) for share in self.shares.choose(calls, pricing.chunk)]
        chosen = _fitting(chosen, pricing)
        over = {id(waiter) for _, waiter, _, whole in chosen if whole}
        self._waiting = [one for one in waiting if id(one[1]) not in over]
        return chosen


def _fitting(chosen: list[_Chosen], pricing: Pricing) -> list[_Chosen]:
    """The first, and those after it for as long as the pricing takes them together."""
    works = [work if whole else work.part(tokens) for work, _, tokens, whole in chosen]
    if len(works) == 1 or pricing.fits(works):
        return chosen
    together = 1
    while pricing.fits(works[: together + 1]):
        together += 1
    return chosen[:together]
