"""An asyncio event loop in simulated time, driven by SimPy.

Ordinary coroutines run unchanged; ``asyncio.sleep`` takes no time on the wall clock:

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main())

- Time is an integer number of nanoseconds in a SimPy environment (``loop.env``), from 0;
  ``loop.time()`` is the same in seconds. Timers are entries of SimPy's own event queue, so
  SimPy processes may run beside coroutines.
- Callbacks of one instant run first in, first out, and timers too, which asyncio leaves open.
  ``SimLoop(shuffle_seed=...)`` shuffles what asyncio leaves open (timers of one instant, and
  nothing else), to find code that depends on it.
- Cancelled timers neither fire nor move time.
- ``run_in_executor`` runs the function at once, in no simulated time.
- Threads cannot hold up simulated time: ``call_soon_threadsafe`` works, but a loop with
  nothing to do does not wait for a thread that may call it some day.
- Real I/O raises RealIOError, a deadlock DeadlockError, a livelock LivelockError.
"""

import asyncio
import math
from asyncio import events
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from heapq import heapify, heappop, heappush
from random import Random
from typing import Any, Final, TypeVar, TypeVarTuple, cast

import simpy
from simpy.events import NORMAL

from foredraft_sim.errors import DeadlockError, LivelockError
from foredraft_sim.loop.describe import callback_name, event_name, waiting_tasks
from foredraft_sim.loop.environment import NS_PER_S, SimEnvironment, is_cancelled
from foredraft_sim.loop.real_io import NoRealIO

LIVELOCK_CALLBACKS: Final = 1_000_000

_LIVELOCK_SAMPLE = 1_000  # callbacks recorded before a livelock is reported
_COMPACT_ABOVE = 256  # cancelled timers kept before the queue is compacted

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class SimLoop(NoRealIO, asyncio.BaseEventLoop):
    """An event loop whose clock is SimPy's.

    ``shuffle_seed``: run timers of one instant in a random order, the same for the same seed.
    ``livelock_callbacks``: this many callbacks at one instant are a livelock.
    """

    _ready: Any  # BaseEventLoop's deque of handles
    _stopping: bool
    _debug: bool
    _closed: bool

    def __init__(self, *, shuffle_seed: int | None = None, livelock_callbacks: int = LIVELOCK_CALLBACKS) -> None:
        super().__init__()
        self.env = SimEnvironment()
        self._now_s = 0.0  # of env.now, which is in nanoseconds
        self._queue: list[Any] = self.env._queue
        ids = self.env._eid
        self._ids: Iterator[int] = ids if shuffle_seed is None else _shuffled(ids, shuffle_seed)
        self._livelock_callbacks = livelock_callbacks
        self._cancelled_timers = 0
        self._callbacks = 0  # of this instant
        self._suspects: Counter[str] = Counter()
        self._clock_resolution = 1 / NS_PER_S

    def time(self) -> float:
        """Simulated seconds since the loop was made."""
        return self._now_s

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call ``callback`` after ``delay`` seconds, rounded to a nanosecond; at once if negative."""
        return self._schedule(delay * NS_PER_S, callback, args, context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call ``callback`` at ``when`` in seconds of ``time()``; at once if that is past."""
        return self._schedule(when * NS_PER_S - self.env._now, callback, args, context)

    def _schedule(
        self, delay_ns: float, callback: Callable[..., object], args: Any, context: Context | None
    ) -> asyncio.TimerHandle:
        self._check_closed()  # type: ignore[attr-defined]
        if self._debug:
            self._check_thread()  # type: ignore[attr-defined]
            self._check_callback(callback, "call_at")  # type: ignore[attr-defined]
        if delay_ns == math.inf:  # never: asyncio.sleep(inf) waits, and moves no time
            return asyncio.TimerHandle(math.inf, callback, args, self, context)
        due = self.env._now if delay_ns <= 0 else self.env._now + round(delay_ns)
        timer = asyncio.TimerHandle(due / NS_PER_S, callback, args, self, context)
        timer._scheduled = True  # type: ignore[attr-defined]
        heappush(self._queue, (due, NORMAL, next(self._ids), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """TimerHandle.cancel() reports here. Dead timers leave the queue once they are the majority."""
        if not handle._scheduled:  # type: ignore[attr-defined]
            return
        self._cancelled_timers += 1
        if self._cancelled_timers > _COMPACT_ABOVE and self._cancelled_timers * 2 > len(self._queue):
            # The handle that reports is marked cancelled only after this call; it stays for now.
            self._queue[:] = [entry for entry in self._queue if not is_cancelled(entry[3])]
            heapify(self._queue)
            self._cancelled_timers = 1

    def as_future(self, event: simpy.Event) -> "asyncio.Future[Any]":
        """A future of a SimPy event, so that a coroutine can await a SimPy process."""
        future = self.create_future()

        def settle(event: simpy.Event) -> None:
            if future.cancelled():
                return
            if event.ok:
                future.set_result(event.value)
            else:
                event.defused = True
                future.set_exception(cast(BaseException, event.value))

        if event.callbacks is None:  # it has been processed already
            settle(event)
        else:
            event.callbacks.append(settle)
        return future

    def run_in_executor(self, executor: object, func: Callable[[*_Ts], _T], *args: *_Ts) -> "asyncio.Future[_T]":
        """Run ``func`` here and now, whatever the executor: real computing takes no simulated time."""
        self._check_closed()  # type: ignore[attr-defined]
        future: asyncio.Future[_T] = self.create_future()
        running = events._get_running_loop()
        events._set_running_loop(None)  # as in a worker thread
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        finally:
            events._set_running_loop(running)
        return future

    def set_default_executor(self, executor: object) -> None:
        """Accepted and not used: functions run in the loop's own thread."""

    def close(self) -> None:
        """Close the loop; what is scheduled is dropped."""
        super().close()
        self._queue.clear()

    def _run_once(self) -> None:
        """One batch: what is ready and the timers that are due. Moves time if there is nothing."""
        ready, queue = self._ready, self._queue
        if (queue and queue[0][0] <= self.env._now) or not (ready or self._stopping):
            self._collect()
        count = len(ready)
        self._callbacks += count
        if self._callbacks > self._livelock_callbacks:
            self._watch_livelock(map(callback_name, ready))
        while count:
            count -= 1
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
        handle = None  # break cycles when an exception occurs

    def _collect(self) -> None:
        """Move the timers that are due to the ready callbacks; SimPy's own events run here.

        Time moves to the next of them where nothing is ready. Raises DeadlockError if there is none.
        """
        queue, ready, env = self._queue, self._ready, self.env
        while queue:
            due, _, _, event = queue[0]
            later = due > env._now
            if later and (ready or self._stopping):
                return
            timer = isinstance(event, asyncio.TimerHandle)
            if timer:
                heappop(queue)
                if event._cancelled:
                    self._cancelled_timers -= 1
                    continue
                event._scheduled = False
                ready.append(event)
            if later:
                env._now = due
                self._now_s = due / NS_PER_S
                self._callbacks = 0
                if self._suspects:
                    self._suspects.clear()
            if not timer:
                self._callbacks += 1
                if self._callbacks > self._livelock_callbacks:
                    self._watch_livelock([event_name(event)])
                env._step()
        if not (ready or self._stopping):
            waiting = waiting_tasks(asyncio.all_tasks(self)) or "  (no task)"
            raise DeadlockError(f"nothing is scheduled at {self.time():.9f} s and these tasks wait:\n{waiting}")

    def _watch_livelock(self, names: Iterable[str]) -> None:
        """Time stands still for too long: record what runs, then say so."""
        self._suspects.update(names)
        if self._suspects.total() < _LIVELOCK_SAMPLE:
            return
        worst = "\n".join(f"  {name} ({times} times)" for name, times in self._suspects.most_common(5))
        callbacks, total = self._callbacks, self._suspects.total()
        self._callbacks = 0  # so that what clears up after the error can run
        self._suspects.clear()
        raise LivelockError(
            f"{callbacks} callbacks ran at {self.time():.9f} s and time did not move; "
            f"of the last {total}, most were:\n{worst}"
        )

    def _write_to_self(self) -> None:
        """call_soon_threadsafe() wakes a selector with this; here none sleeps."""


def _shuffled(ids: Iterable[int], seed: int) -> Iterator[int]:
    """Unique ids in an order that ``seed`` draws."""
    draw = Random(seed)
    for number in ids:
        yield draw.getrandbits(64) << 64 | number
