"""The simulated loop keeps asyncio's promises, and its own about time."""

import asyncio
import contextvars
import math
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from foredraft_sim import DeadlockError, LivelockError, RealIOError, SimLoop, SimulationError
from foredraft_sim.loop.real_io import NoRealIO

T = TypeVar("T")
DELAYS_NS = st.integers(min_value=0, max_value=5)


def run(main: Coroutine[Any, Any, T], **options: Any) -> T:
    with asyncio.Runner(loop_factory=lambda: SimLoop(**options)) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_sleep_moves_the_clock_by_its_delay_and_takes_no_wall_time() -> None:
    async def main() -> float:
        await asyncio.sleep(86_400)
        return now()

    started = time.monotonic()
    assert run(main()) == 86_400.0
    assert time.monotonic() - started < 30


@given(st.lists(DELAYS_NS, max_size=40))
def test_timers_fire_in_order_of_time_and_first_in_first_out_within_an_instant(delays: list[int]) -> None:
    fired: list[tuple[float, int]] = []
    loop = SimLoop()

    def note(number: int) -> None:
        fired.append((loop.time(), number))

    for number, delay in enumerate(delays):
        loop.call_later(delay * 1e-9, note, number)
    loop.call_later(1, loop.stop)
    loop.run_forever()
    loop.close()
    assert fired == sorted((delay / 1e9, number) for number, delay in enumerate(delays))


@given(st.lists(st.tuples(DELAYS_NS, st.booleans()), max_size=40))
def test_cancelled_timers_neither_fire_nor_move_time(timers: list[tuple[int, bool]]) -> None:
    fired: list[int] = []
    loop = SimLoop()
    handles = [loop.call_later(delay * 1e-9, fired.append, delay) for delay, _ in timers]
    for handle, (_, cancelled) in zip(handles, timers, strict=True):
        if cancelled:
            handle.cancel()
    kept = sorted(delay for delay, cancelled in timers if not cancelled)
    with pytest.raises(DeadlockError):
        loop.run_forever()
    assert fired == kept
    assert loop.time() == max(kept, default=0) / 1e9
    loop.close()


@given(st.recursive(st.just([]), lambda inner: st.lists(st.tuples(st.floats(-1, 1), inner), max_size=4)))
def test_time_never_goes_back_whatever_callbacks_schedule(plan: list[Any]) -> None:
    seen: list[float] = []
    loop = SimLoop()

    def schedule(steps: list[Any]) -> None:
        seen.append(loop.time())
        for delay, inner in steps:
            loop.call_later(delay, schedule, inner)
            loop.call_at(delay, schedule, inner)

    loop.call_soon(schedule, plan)
    loop.call_later(100, loop.stop)
    loop.run_forever()
    loop.close()
    assert seen == sorted(seen)


def test_a_thousand_cancelled_timers_leave_the_queue_and_the_rest_still_fires() -> None:
    fired: list[float] = []
    loop = SimLoop()
    for number in range(1_000):
        loop.call_later(number, fired.append, number)
    doomed = [loop.call_later(10_000 + number, fired.append, -1) for number in range(10_000)]
    for handle in doomed:
        handle.cancel()
        handle.cancel()
    assert len(loop.env._queue) < 3_000
    with pytest.raises(DeadlockError):
        loop.run_forever()
    loop.close()
    assert fired == list(range(1_000))


def test_a_timer_cancelled_at_the_instant_at_which_it_is_due_does_not_fire() -> None:
    fired: list[str] = []
    loop = SimLoop()
    timers: list[asyncio.TimerHandle] = []
    loop.call_later(1, lambda: timers[0].cancel())
    timers.append(loop.call_later(1, fired.append, "second"))
    loop.call_later(2, loop.stop)
    loop.run_forever()
    loop.close()
    assert fired == []


def test_a_timer_due_now_runs_even_while_callbacks_keep_coming() -> None:
    async def main() -> int:
        done = asyncio.Event()
        asyncio.get_running_loop().call_later(0, done.set)
        spins = 0
        while not done.is_set():
            await asyncio.sleep(0)
            spins += 1
        return spins

    assert run(main()) <= 2


def test_a_sum_of_many_delays_is_exact_to_the_nanosecond() -> None:
    async def main() -> float:
        for _ in range(10_000):
            await asyncio.sleep(0.000_000_1)
        return now()

    assert run(main()) == 0.001


def test_call_at_and_call_later_agree_after_days() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(5 * 86_400 + 0.123_456_789)
        order: list[str] = []
        loop.call_at(loop.time() + 0.000_000_003, order.append, "at")
        loop.call_later(0.000_000_003, order.append, "later")
        await asyncio.sleep(1)
        return order

    assert run(main()) == ["at", "later"]


def test_waiting_for_ever_moves_no_time() -> None:
    async def main() -> float:
        try:
            async with asyncio.timeout(2):
                await asyncio.sleep(math.inf)
        except TimeoutError:
            return now()
        return -1.0

    assert run(main()) == 2.0


def test_a_delay_that_is_not_a_number_is_refused() -> None:
    loop = SimLoop()
    with pytest.raises(ValueError, match="NaN"):
        loop.call_later(math.nan, print)
    loop.close()


def test_task_group_timeout_queue_event_wait_for_and_gather_work() -> None:
    async def main() -> list[Any]:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
        event = asyncio.Event()
        log: list[Any] = []

        async def produce() -> None:
            for number in range(4):
                await asyncio.sleep(1)
                await queue.put(number)
            event.set()

        async def consume() -> None:
            while len(log) < 4:
                log.append((now(), await queue.get()))

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            group.create_task(consume())
        await event.wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 3)
        log.append(now())
        log.append(await asyncio.gather(asyncio.sleep(2, "a"), asyncio.sleep(1, "b")))
        done, pending = await asyncio.wait([asyncio.create_task(asyncio.sleep(1))], timeout=5)
        log.append((len(done), len(pending), now()))
        return log

    assert run(main()) == [(0.0, 0), (1.0, 1), (2.0, 2), (3.0, 3), 7.0, ["a", "b"], (1, 0, 10.0)]


def test_an_exception_in_a_task_group_cancels_the_others_in_simulated_time() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise RuntimeError("no")

    async def main() -> float:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                group.create_task(asyncio.sleep(100))
        except* RuntimeError:
            pass
        return now()

    assert run(main()) == 1.0


def test_context_variables_follow_tasks_and_timers() -> None:
    who = contextvars.ContextVar("who", default="nobody")

    async def main() -> list[str]:
        seen: list[str] = []
        who.set("edge")
        asyncio.get_running_loop().call_later(1, lambda: seen.append(who.get()))
        task = asyncio.create_task(asyncio.sleep(2))
        who.set("cloud")
        await task
        seen.append(who.get())
        context = contextvars.copy_context()
        asyncio.get_running_loop().call_at(now(), lambda: who.set("inner"), context=context)
        await asyncio.sleep(1)
        seen.append(context[who])
        return seen

    assert run(main()) == ["edge", "cloud", "inner"]


def test_async_generators_are_finalised_and_debug_mode_works() -> None:
    closed: list[bool] = []

    async def numbers() -> Any:
        try:
            for number in range(10):
                await asyncio.sleep(1)
                yield number
        finally:
            closed.append(True)

    async def main() -> None:
        async for number in numbers():
            if number == 3:
                break

    with asyncio.Runner(debug=True, loop_factory=SimLoop) as runner:
        runner.run(main())
    assert closed == [True]


def test_a_function_in_an_executor_runs_at_once_outside_of_the_loop() -> None:
    def compute(number: int) -> int:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return number + 1

    async def main() -> tuple[int, int, float]:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            first = await loop.run_in_executor(pool, compute, 1)
        second = await asyncio.to_thread(compute, 2)
        assert asyncio.get_running_loop() is loop
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 // 0)
        return first, second, loop.time()

    assert run(main()) == (2, 3, 0.0)


def test_call_soon_threadsafe_works_from_another_thread() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(future.set_result, "hello"))
        thread.start()
        thread.join()
        return await future

    assert run(main()) == "hello"


def test_a_deadlock_names_the_waiting_tasks_and_where_they_wait() -> None:
    async def wait_for_verdict(queue: "asyncio.Queue[int]") -> None:
        await queue.get()

    async def main() -> None:
        state = asyncio.create_task(wait_for_verdict(asyncio.Queue()), name="cloud")
        await asyncio.sleep(1.5)
        await state

    with pytest.raises(DeadlockError) as raised:
        run(main())
    message = str(raised.value)
    assert "at 1.500000000 s" in message
    assert "cloud waits at" in message
    assert "wait_for_verdict" in message
    assert "Queue.get" in message
    assert "task cloud" in message  # what the main task waits for


def test_a_loop_goes_on_after_a_deadlock_so_that_tasks_can_clear_up() -> None:
    cleared: list[float] = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            cleared.append(now())

    with pytest.raises(DeadlockError):
        run(main())
    assert cleared == [1.0]


def test_a_livelock_names_what_ran_and_the_loop_can_be_closed_afterwards() -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.sleep(2)
        await asyncio.create_task(spin(), name="spinner")

    with pytest.raises(LivelockError, match=r"at 2\.0+ s and time did not move(.|\n)*spinner at .*spin"):
        run(main(), livelock_callbacks=10_000)


def test_a_simpy_process_that_never_moves_time_is_a_livelock_too() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        env = loop.env

        def spin() -> Any:
            while True:
                yield env.timeout(0)

        env.process(spin())
        await asyncio.Event().wait()

    with pytest.raises(LivelockError, match="SimPy"):
        run(main(), livelock_callbacks=10_000)


def test_many_callbacks_with_time_between_them_are_no_livelock() -> None:
    async def main() -> None:
        for _ in range(2_000):
            await asyncio.sleep(1e-9)

    run(main(), livelock_callbacks=100)


REAL_IO = [name for name in vars(NoRealIO) if not name.startswith("_")]


@pytest.mark.parametrize("name", REAL_IO)
def test_real_io_is_refused_by_name(name: str) -> None:
    loop = SimLoop()
    with pytest.raises(RealIOError, match=rf"loop\.{name}\(\) is real I/O"):
        getattr(loop, name)()
    loop.close()


def test_every_method_of_an_event_loop_is_either_simulated_or_refused() -> None:
    simulated = {
        "call_at",
        "call_exception_handler",
        "call_later",
        "call_soon",
        "call_soon_threadsafe",
        "close",
        "create_future",
        "create_task",
        "default_exception_handler",
        "get_debug",
        "get_exception_handler",
        "get_task_factory",
        "is_closed",
        "is_running",
        "run_forever",
        "run_in_executor",
        "run_until_complete",
        "set_debug",
        "set_default_executor",
        "set_exception_handler",
        "set_task_factory",
        "shutdown_asyncgens",
        "shutdown_default_executor",
        "stop",
        "time",
    }
    public = {name for name in dir(asyncio.BaseEventLoop) if not name.startswith("_")}
    assert public - simulated - set(REAL_IO) == set()


async def _connect() -> None:
    await asyncio.open_connection("localhost", 1)


async def _resolve() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 1)


async def _spawn() -> None:
    await asyncio.create_subprocess_exec("true")


@pytest.mark.parametrize("main", [_connect, _resolve, _spawn])
def test_asyncio_s_own_helpers_meet_the_refusal(main: Callable[[], Awaitable[None]]) -> None:
    async def call() -> None:
        await main()

    with pytest.raises(RealIOError, match="sim_link"):
        run(call())


def test_a_simpy_process_and_coroutines_share_one_clock() -> None:
    async def main() -> tuple[list[tuple[str, float]], str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        env, log = loop.env, []

        def machine() -> Any:
            yield env.timeout(1_500_000_000)
            log.append(("machine", loop.time()))
            yield env.timeout(1_000_000_000)
            return "made"

        process = env.process(machine())
        await asyncio.sleep(2)
        log.append(("coroutine", loop.time()))
        made = await loop.as_future(process)
        assert await loop.as_future(process) == "made"
        return [*log, ("end", loop.time())], made

    assert run(main()) == ([("machine", 1.5), ("coroutine", 2.0), ("end", 2.5)], "made")


def test_a_simpy_process_that_fails_raises_where_it_is_awaited() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)

        def machine() -> Any:
            yield loop.env.timeout(1)
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            await loop.as_future(loop.env.process(machine()))

    run(main())


def test_only_the_loop_drives_its_environment_and_only_in_whole_nanoseconds() -> None:
    loop = SimLoop()
    with pytest.raises(SimulationError, match="await"):
        loop.env.run()
    with pytest.raises(SimulationError, match="await"):
        loop.env.step()
    with pytest.raises(SimulationError, match=r"0\.5"):
        loop.env.timeout(0.5)
    loop.call_later(1, print).cancel()
    assert loop.env.peek() == math.inf
    loop.call_later(2, print)
    assert loop.env.peek() == 2_000_000_000
    assert isinstance(loop.env, simpy.Environment)
    loop.close()


async def _who_is_first(names: int) -> list[int]:
    order: list[int] = []

    async def contend(name: int) -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            order.append(name)

    async with asyncio.TaskGroup() as group:
        for name in range(names):
            group.create_task(contend(name))
    return order


def test_ties_run_first_in_first_out_unless_shuffled() -> None:
    assert run(_who_is_first(8)) == list(range(8)) * 3


def test_shuffled_ties_run_in_another_order_that_the_seed_decides() -> None:
    verify_params = [run(_who_is_first(8), shuffle_seed=seed) for seed in (1, 1, 2)]
    assert verify_params[0] == verify_params[1] != verify_params[2]
    assert verify_params[0] != list(range(8)) * 3
    assert [sorted(verify_params[0][turn : turn + 8]) for turn in (0, 8, 16)] == [list(range(8))] * 3


def test_shuffling_leaves_callbacks_of_call_soon_in_their_order() -> None:
    async def main() -> list[int]:
        order: list[int] = []
        for number in range(50):
            asyncio.get_running_loop().call_soon(order.append, number)
        await asyncio.sleep(0)
        return order

    assert run(main(), shuffle_seed=5) == list(range(50))
