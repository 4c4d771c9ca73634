"""Earliest deadline first among the calls of one owner, and nobody waits for ever."""

import asyncio
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from engines.test_paced_batches import in_simulated_time, profile
from foredraft.engines.device import Device, Work
from foredraft.engines.pace import Pace
from foredraft.engines.paced import PacedTarget
from foredraft.engines.scripted import ScriptedTarget
from foredraft.engines.urgency import PATIENCE_S, turn_s
from foredraft.protocol.ports import Pass, Prediction, Urgent
from foredraft.protocol.sampling import Sampling

MOMENTS = st.floats(0.0, 1e6)


@given(st.lists(MOMENTS, min_size=2, max_size=12).map(sorted))
def test_without_deadlines_it_is_first_come_first_served(asked_s: list[float]) -> None:
    keys = [turn_s(inf, at) for at in asked_s]
    assert keys == sorted(keys)


@given(asked_s=MOMENTS, later_s=MOMENTS, due_s=st.one_of(MOMENTS, st.just(inf)), left_s=st.floats(0.0, 1e3))
def test_nobody_is_overtaken_by_what_comes_more_than_a_moment_later(
    asked_s: float, later_s: float, due_s: float, left_s: float
) -> None:
    later_s += asked_s + PATIENCE_S
    assert turn_s(due_s, asked_s) <= turn_s(later_s + left_s, later_s)


def one_at_a_time() -> Pace:
    return Pace(profile(batch=1), None, "error")


def order_of(due_s: list[float]) -> list[int]:
    """In which order calls that come together, behind one that runs, have the device."""

    async def main() -> None:
        pace, device = one_at_a_time(), Device(spin_s=0.0)

        async def run(number: int, due_s: float) -> None:
            turn = await device.enter(Work("pass", 1, 0, 0, pace, due_s=due_s))
            began.append((turn.start_s, number))
            await turn.over()
            turn.leave()

        first = asyncio.create_task(run(-1, inf))
        await asyncio.sleep(0.0)
        await asyncio.gather(first, *(run(number, due) for number, due in enumerate(due_s)))

    began: list[tuple[float, int]] = []
    in_simulated_time(main)
    return [number for _, number in sorted(began, key=lambda one: one[0])][1:]


def test_a_device_that_runs_one_call_at_a_time_runs_the_most_urgent_first() -> None:
    assert order_of([inf, 9.0, 0.7, inf, 0.5]) == [4, 2, 0, 1, 3]


def test_a_flood_of_urgent_calls_delays_one_without_a_deadline_by_no_more_than_its_patience() -> None:
    async def main() -> None:
        pace, device = one_at_a_time(), Device(spin_s=0.0)
        clock = asyncio.get_running_loop()

        async def run(due_s: float) -> float:
            turn = await device.enter(Work("pass", 1, 0, 0, pace, due_s=due_s))
            await turn.over()
            turn.leave()
            return turn.end_s - turn.start_s

        async def flood() -> None:
            while True:
                await run(clock.time() + 0.01)

        floods = [asyncio.create_task(flood()) for _ in range(8)]
        await asyncio.sleep(0.0)
        began_s = clock.time()
        took_s = await run(inf)
        waited_s = clock.time() - began_s - took_s
        assert 0.0 < waited_s <= PATIENCE_S + 10 * took_s
        for task in floods:
            task.cancel()
        await asyncio.gather(*floods, return_exceptions=True)

    in_simulated_time(main)


def test_a_paced_slot_passes_on_by_when_its_calls_are_wanted() -> None:
    async def main() -> None:
        target = PacedTarget(ScriptedTarget(lambda position: 1), profile(batch=1))
        order: list[str] = []

        async def session(name: str, due_s: float) -> None:
            slot = await target.slot([1], Sampling())
            assert isinstance(slot, Urgent)
            slot.wanted_by(due_s)
            await slot.verify(Pass((1,)), silent)
            order.append(name)

        await asyncio.gather(session("first", inf), session("whenever", inf), session("soon", 0.2))
        assert order.index("soon") < order.index("whenever")

    in_simulated_time(main)


def silent(prediction: Prediction) -> None:
    """For passes whose exits nobody reads."""
