"""The wake-up call between coroutines: nothing is lost, and nobody waits longer than asked."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

from foredraft.protocol.signal import Pause, Signal

Run = Callable[[Coroutine[Any, Any, None]], None]


def test_a_change_before_the_wait_ends_it_at_once_and_is_seen_once(run_on_each_loop: Run) -> None:
    async def main() -> None:
        signal = Signal()
        signal.set()
        signal.set()
        await signal.wait()
        again = asyncio.create_task(wait_for(signal))
        await asyncio.sleep(0)
        assert not again.done()
        signal.set()
        await again

    run_on_each_loop(main())


def test_a_wait_ends_when_its_time_is_over(run_on_each_loop: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 0.01
        await Signal().wait(until_s)
        assert loop.time() > until_s - 0.002

    run_on_each_loop(main())


def test_a_cancelled_wait_leaves_the_signal_usable(run_on_each_loop: Run) -> None:
    async def main() -> None:
        signal = Signal()
        waiting = asyncio.create_task(wait_for(signal))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        signal.set()
        await signal.wait()

    run_on_each_loop(main())


def test_a_sleep_takes_its_time_and_a_cancelled_one_wakes_nobody(run_on_each_loop: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await Pause(loop, 0.01)
        assert loop.time() > began_s + 0.008
        sleeper = asyncio.create_task(forever())
        await asyncio.sleep(0)
        sleeper.cancel()
        (ended,) = await asyncio.gather(sleeper, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)

    async def forever() -> None:
        await Pause(asyncio.get_running_loop(), 3600.0)

    run_on_each_loop(main())


def test_a_change_in_the_moment_of_a_cancellation_is_not_lost(run_on_each_loop: Run) -> None:
    async def main() -> None:
        signal = Signal()
        waiting = asyncio.create_task(wait_for(signal))
        await asyncio.sleep(0)
        signal.set()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await signal.wait()  # it was set, and nobody has seen it

    run_on_each_loop(main())


def test_a_callback_may_let_the_waiter_go_on_at_once(run_on_each_loop: Run) -> None:
    async def main() -> None:
        order: list[str] = []
        loop, signal, over = asyncio.get_running_loop(), Signal(), asyncio.Event()

        async def waiter() -> None:
            await signal.wait(loop.time() + 3600.0)
            order.append("waiter")
            await signal.wait()
            order.append("again")

        waiting = asyncio.create_task(waiter())
        await asyncio.sleep(0)
        loop.call_soon(signal.set_last)
        loop.call_soon(order.append, "next")
        loop.call_soon(over.set)
        await over.wait()
        assert order == ["waiter", "next"]
        loop.call_soon(signal.set_last)
        await waiting

    run_on_each_loop(main())


def test_a_task_that_signals_last_goes_on_itself_before_the_waiter_does(run_on_each_loop: Run) -> None:
    async def main() -> None:
        order: list[str] = []
        signal = Signal()

        async def waiter() -> None:
            await signal.wait()
            order.append("waiter")

        waiting = asyncio.create_task(waiter())
        await asyncio.sleep(0)
        signal.set_last()
        order.append("task")
        await waiting
        assert order == ["task", "waiter"]

    run_on_each_loop(main())


def test_a_wait_leaves_nothing_behind_for_the_garbage_collector(run_on_each_loop: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        gc.collect()
        gc.disable()
        try:
            pause = Pause(loop, 0.001)
            seen = weakref.ref(pause)
            await pause
            del pause
            await asyncio.sleep(0)  # the loop lets go of the timer that fired
            assert seen() is None
        finally:
            gc.enable()

    run_on_each_loop(main())


async def wait_for(signal: Signal) -> None:
    await signal.wait()
