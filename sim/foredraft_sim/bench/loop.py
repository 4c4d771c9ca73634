"""How fast the simulated loop is: ratios of wall time within one run, on one core.

``python -m foredraft_sim.bench.loop`` prints them. Ratios, because seconds depend on the machine.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from foredraft_sim.loop.event_loop import SimLoop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two rates of the same work, per second of wall time."""

    title: str
    unit: str
    rate: float
    against: str
    against_rate: float

    @property
    def ratio(self) -> float:
        """How many times as fast as what it is compared with."""
        return self.rate / self.against_rate

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.title}: {self.rate:,.0f} {self.unit}, {self.ratio:.2f}x of {self.against} "
            f"({self.against_rate:,.0f} {self.unit})"
        )


async def _sleeps(tasks: int, turns: int) -> None:
    # A nanosecond is over before a real loop can wait for it, so neither loop idles.
    async def sleep() -> None:
        for _ in range(turns):
            await asyncio.sleep(1e-9)

    await asyncio.gather(*[sleep() for _ in range(tasks)])


async def _queues(pairs: int, turns: int) -> None:
    async def put(queue: "asyncio.Queue[int]") -> None:
        for number in range(turns):
            await queue.put(number)

    async def get(queue: "asyncio.Queue[int]") -> None:
        for _ in range(turns):
            await queue.get()

    queues: list[asyncio.Queue[int]] = [asyncio.Queue(1) for _ in range(pairs)]
    await asyncio.gather(*[work(queue) for queue in queues for work in (put, get)])


def _seconds(factory: LoopFactory, main: Coroutine[Any, Any, None]) -> float:
    """Wall seconds of ``main`` on a new loop."""
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.get_loop()
        started = time.perf_counter()
        runner.run(main)
        return time.perf_counter() - started


def _best_rate(factory: LoopFactory, work: Callable[[int, int], Coroutine[Any, Any, None]], size: int) -> float:
    tasks = 100
    return tasks * size / min(_seconds(factory, work(tasks, size)) for _ in range(3))


def compare_loops(turns: int = 300) -> list[Comparison]:
    """The simulated loop against asyncio's own: 100 tasks that sleep, 100 pairs that share a queue."""
    return [
        Comparison(
            f"SimLoop, {title}",
            unit,
            _best_rate(SimLoop, work, turns),
            "asyncio",
            _best_rate(asyncio.new_event_loop, work, turns),
        )
        for title, unit, work in (("sleeps", "sleeps/s", _sleeps), ("queues", "items/s", _queues))
    ]


def main() -> None:
    """Print all comparisons."""
    for comparison in compare_loops():
        print(comparison)


if __name__ == "__main__":
    main()
