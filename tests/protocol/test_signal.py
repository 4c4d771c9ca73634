"""The wake-up call between coroutines: nothing is lost, and nobody waits longer than asked."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from foredraft.protocol.signal import Signal

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


async def wait_for(signal: Signal) -> None:
    await signal.wait()
