"""SimPy's environment as a SimLoop uses it, and the timers in its queue."""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, Final, NoReturn

import msgspec
import simpy
from simpy.events import NORMAL

from foredraft_sim.errors import SimulationError
from foredraft_sim.loop.describe import callback_name

NS_PER_S: Final = 1_000_000_000


class SimEnvironment(simpy.Environment):
    """SimPy's environment in integer nanoseconds, driven by a SimLoop and by nobody else."""

    def schedule(self, event: simpy.Event, priority: Any = NORMAL, delay: float = 0) -> None:
        """Schedule ``event`` after ``delay`` nanoseconds. Raises SimulationError unless it is an int."""
        if type(delay) is not int:
            raise SimulationError(
                f"a delay of {delay!r} in the environment of a SimLoop: "
                "delays are integer nanoseconds, e.g. round(seconds * 1e9)"
            )
        super().schedule(event, priority, delay)

    def peek(self) -> float:
        """Time of the next event in nanoseconds, infinity if there is none."""
        return min((entry[0] for entry in self._queue if not is_cancelled(entry[3])), default=math.inf)

    def step(self) -> NoReturn:
        """Refused: the loop steps."""
        raise SimulationError("the loop runs this environment: await something instead of env.step()")

    def run(self, until: Any = None) -> NoReturn:
        """Refused: the loop runs."""
        raise SimulationError("the loop runs this environment: await something instead of env.run()")

    _step = simpy.Environment.step


class SimTimer(msgspec.Struct, eq=False):
    """A timer in SimPy's queue: what asyncio asks of a TimerHandle, as a struct, which is made in a third of the time.

    ``_scheduled``: it is in the queue.
    """

    _due_ns: float
    _callback: Callable[..., object] | None
    _args: Sequence[Any] | None
    _loop: Any  # the SimLoop
    _context: Context
    _scheduled: bool
    _cancelled: bool = False
    _source_traceback: Any = None

    def __repr__(self) -> str:
        return f"<SimTimer {callback_name(self)} when={self.when()}>"

    def when(self) -> float:
        """When it is due, in seconds of the loop's clock."""
        return self._due_ns / NS_PER_S

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._cancelled

    def cancel(self) -> None:
        """Neither fire nor move time. Cheap for a timer that has fired: asyncio.sleep() cancels each."""
        if not self._cancelled:
            if self._scheduled:
                self._loop._timer_handle_cancelled(self)
            self._cancelled = True
            self._callback = self._args = None

    _run = asyncio.Handle._run


def is_cancelled(event: object) -> bool:
    return type(event) is SimTimer and event._cancelled
