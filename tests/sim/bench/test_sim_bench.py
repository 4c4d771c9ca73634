"""The benchmarks measure what they say. Their figures are for `foredraft bench`, not for tests."""

import asyncio

import pytest

from foredraft_sim import SimLoop
from foredraft_sim.bench.loop import (
    LoopFactory,
    PlainLoop,
    Round,
    bare_pair,
    bare_pair_rate,
    bare_process_rate,
    compare_loops,
    compare_pairs,
)


@pytest.mark.parametrize("factory", [SimLoop, PlainLoop])
def test_a_round_of_the_bare_pair_takes_the_time_of_its_sleeps(factory: LoopFactory) -> None:
    sleeps = Round(draft_steps=3, draft_s=0.01, one_way_s=0.02, pass_s=0.1)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(bare_pair(50, sleeps))
        assert runner.get_loop().time() == pytest.approx(50 * sleeps.seconds)
    assert sleeps.seconds == pytest.approx(0.17)


def test_the_plain_loop_leaves_timers_to_simpy_in_order_and_passes_over_cancelled_ones() -> None:
    loop = PlainLoop()
    fired: list[str] = []
    loop.call_at(2.0, fired.append, "late")
    loop.call_later(1.0, fired.append, "cancelled").cancel()
    loop.call_at(-1.0, fired.append, "past")
    assert len(loop.env._queue) == 3
    loop.call_later(2.0, loop.stop)
    loop.run_forever()
    assert (fired, loop.time()) == (["past", "late"], 2.0)
    loop.close()


def test_all_comparisons_run_and_print_both_rates() -> None:
    assert bare_pair_rate(20) > 0
    assert bare_process_rate(20) > 0
    lines = [str(comparison) for comparison in (*compare_loops(turns=2), compare_pairs(rounds=20))]
    assert [line.split(":")[0] for line in lines] == ["SimLoop, sleeps", "SimLoop, queues", "bare pair of coroutines"]
    assert all(" of " in line and "/s" in line for line in lines)
