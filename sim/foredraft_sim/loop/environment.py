"""SimPy's environment as a SimLoop uses it."""

import asyncio
import math
from typing import Any, Final, NoReturn

import simpy
from simpy.events import NORMAL

from foredraft_sim.errors import SimulationError

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


def is_cancelled(event: object) -> bool:
    """Whether it is a timer that was cancelled; what else is in SimPy's queue is never."""
    return isinstance(event, asyncio.TimerHandle) and event.cancelled()
