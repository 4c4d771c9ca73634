"""SimPy's environment as a SimLoop uses it, and the timers in its queue."""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, NoReturn

import simpy
from simpy.events import NORMAL

from foredraft_sim.errors import SimulationError


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


class SimTimer(asyncio.TimerHandle):
    """A timer in SimPy's queue."""

    __slots__ = ()

    _scheduled: bool  # whether it is in the queue
    _cancelled: bool

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: Sequence[Any],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
        scheduled: bool,
    ) -> None:
        if context is None or loop.get_debug():
            asyncio.Handle.__init__(self, callback, args, loop, context)
        else:  # the same in one step
            self._context, self._loop, self._callback, self._args = context, loop, callback, args
            self._cancelled, self._repr, self._source_traceback = False, None, None
        self._when = when
        self._scheduled = scheduled

    def cancel(self) -> None:
        """Neither fire nor move time. Cheap for a timer that has fired: asyncio.sleep() cancels each."""
        if self._scheduled:
            super().cancel()
        else:
            asyncio.Handle.cancel(self)


def is_cancelled(event: object) -> bool:
    return type(event) is SimTimer and event.cancelled()
