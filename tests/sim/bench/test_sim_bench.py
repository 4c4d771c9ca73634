"""The benchmarks measure what they say. Their figures are for `foredraft bench`, not for tests."""

from foredraft_sim.bench.loop import compare_loops


def test_all_comparisons_run_and_print_both_rates() -> None:
    lines = [str(comparison) for comparison in compare_loops(turns=2)]
    assert [line.split(":")[0] for line in lines] == ["SimLoop, sleeps", "SimLoop, queues"]
    assert all(" of " in line and "/s" in line for line in lines)
