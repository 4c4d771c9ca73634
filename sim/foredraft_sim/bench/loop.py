"""How fast the simulated loop is: ratios of wall time within one run, on one core.

``python -m foredraft_sim.bench.loop`` prints them. Ratios, because seconds depend on the machine.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeVarTuple

import simpy

from foredraft_sim.loop.environment import NS_PER_S
from foredraft_sim.loop.event_loop import SimLoop
from foredraft_sim.loop.real_io import NoRealIO

_Ts = TypeVarTuple("_Ts")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@dataclass(frozen=True, slots=True)
class Round:
    """What one synchronous round sleeps: draft steps, the way up, the target pass, the way down."""

    draft_steps: int = 4
    draft_s: float = 0.02
    one_way_s: float = 0.02
    pass_s: float = 0.1

    @property
    def seconds(self) -> float:
        """Simulated seconds of one round."""
        return self.draft_steps * self.draft_s + 2 * self.one_way_s + self.pass_s


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


class PlainLoop(NoRealIO, asyncio.BaseEventLoop):
    """The plainest event loop on SimPy: every timer is a timeout of SimPy's own, in seconds, and SimPy steps.

    What a SimLoop adds (nanoseconds, cancelled timers that move no time, deadlocks and livelocks found) it
    does without, and what asyncio's own base does it leaves to it. It is for comparing with.
    """

    _ready: Any  # BaseEventLoop's deque of handles

    def __init__(self) -> None:
        super().__init__()
        self.env = simpy.Environment()

    def time(self) -> float:
        """Simulated seconds since the loop was made."""
        return float(self.env.now)

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call ``callback`` at ``when`` in seconds of ``time()``; at once if that is past."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        event = self.env.timeout(max(0.0, when - self.env.now))
        event.callbacks.append(lambda _: self._ready.append(timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays with SimPy, and is passed over when its time comes."""

    def _run_once(self) -> None:
        while not self._ready:
            self.env.step()
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()


async def bare_pair(rounds: int, sleeps: Round) -> None:
    """Two coroutines that only sleep and hand over."""
    up: asyncio.Queue[int] = asyncio.Queue()
    down: asyncio.Queue[int] = asyncio.Queue()

    async def edge() -> None:
        for number in range(rounds):
            for _ in range(sleeps.draft_steps):
                await asyncio.sleep(sleeps.draft_s)
            await asyncio.sleep(sleeps.one_way_s)
            up.put_nowait(number)
            await down.get()

    async def cloud() -> None:
        for _ in range(rounds):
            number = await up.get()
            await asyncio.sleep(sleeps.pass_s)
            await asyncio.sleep(sleeps.one_way_s)
            down.put_nowait(number)

    async with asyncio.TaskGroup() as group:
        group.create_task(edge())
        group.create_task(cloud())


def bare_pair_rate(rounds: int, sleeps: Round | None = None, factory: LoopFactory = SimLoop) -> float:
    """Rounds per second of wall time of ``bare_pair`` on a loop."""
    return rounds / _seconds(factory, bare_pair(rounds, sleeps or Round()))


def bare_process_rate(rounds: int, sleeps: Round | None = None) -> float:
    """The same as ``bare_pair_rate`` with two SimPy processes and Stores, without asyncio."""
    sleeps = sleeps or Round()
    env = simpy.Environment()
    up, down = simpy.Store(env), simpy.Store(env)
    draft_ns, way_ns, pass_ns = (
        round(seconds * NS_PER_S) for seconds in (sleeps.draft_s, sleeps.one_way_s, sleeps.pass_s)
    )

    def edge() -> Generator[simpy.Event, Any, None]:
        for number in range(rounds):
            for _ in range(sleeps.draft_steps):
                yield env.timeout(draft_ns)
            yield env.timeout(way_ns)
            yield up.put(number)
            yield down.get()

    def cloud() -> Generator[simpy.Event, Any, None]:
        for _ in range(rounds):
            number = yield up.get()
            yield env.timeout(pass_ns)
            yield env.timeout(way_ns)
            yield down.put(number)

    env.process(edge())
    env.process(cloud())
    started = time.perf_counter()
    env.run()
    return rounds / (time.perf_counter() - started)


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


def compare_pairs(rounds: int = 5_000) -> Comparison:
    """Two coroutines on the SimLoop against two SimPy processes, with the same sleeps."""
    pair = max(bare_pair_rate(rounds) for _ in range(3))
    processes = max(bare_process_rate(rounds) for _ in range(3))
    return Comparison("bare pair of coroutines", "rounds/s", pair, "two SimPy processes", processes)


def main() -> None:
    """Print all comparisons."""
    for comparison in (*compare_loops(), compare_pairs()):
        print(comparison)


if __name__ == "__main__":
    main()
