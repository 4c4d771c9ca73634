"""The loop's clock is fine enough to time what happens on it."""

import asyncio

from foredraft.loop import new_event_loop


def test_the_loops_clock_moves_within_one_turn() -> None:
    async def readings() -> set[float]:
        clock = asyncio.get_running_loop()
        return {clock.time() for _ in range(10_000)}

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert len(runner.run(readings())) > 100


def test_a_timer_is_due_by_the_same_clock() -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + 0.02
        fired = loop.create_future()
        loop.call_at(due_s, lambda: fired.set_result(loop.time()))
        return float(await fired) - due_s

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert runner.run(wait()) > -0.002  # uvloop rounds to the millisecond
