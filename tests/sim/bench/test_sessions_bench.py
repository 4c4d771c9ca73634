"""The simulator's benches, on little work: they run, and say what they promise; speeds are not asserted."""

import json

import pytest
from typer.testing import CliRunner

from foredraft.bench.result import Figure, Result
from foredraft.cli.main import app
from foredraft_sim.bench.sessions import bench_scenario, fleet, rounds_per_s, wall_clock


def test_a_rate_counts_the_rounds_that_there_were() -> None:
    rate, rounds = rounds_per_s(bench_scenario(1, 1, 1, 60))
    assert 15 < rounds < 40
    assert rate > 0.0


def test_fleets_run_in_processes_of_their_own_apart_and_together() -> None:
    result = fleet(rounds=300, few=1, many=30)
    assert "of 30 devices" in result.method
    few, apart, growth, _, together, growth_together, _ = result.figures
    assert growth.value == pytest.approx(few.value / apart.value)
    assert growth.bound is not None
    assert growth_together.value == pytest.approx(few.value / together.value)
    assert growth_together.bound is None
    assert all(figure.value > 0.0 for figure in result.figures)


def test_sessions_over_real_sockets_say_the_same_and_take_about_as_long() -> None:
    result = wall_clock(requests=1, tokens=6, policies=("cloud",))
    texts = result.figures[-1]
    assert texts.name == "texts that differ"
    assert texts.holds


def test_the_benches_are_found_below_foredraft_bench() -> None:
    listed = CliRunner().invoke(app, ["bench", "--help"])
    assert {"simulator", "overhead"} <= set(listed.stdout.split())
    wrong = CliRunner().invoke(app, ["bench", "simulator", "--only", "loop-sped"])
    assert wrong.exit_code == 2
    assert "did you mean 'loop-speed'?" in wrong.stderr


def test_a_bound_that_does_not_hold_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Result("loop-speed", "made up", (Figure("a ratio", 0.1, "x", bound=0.4, at_least=True),))
    monkeypatch.setattr("foredraft_sim.bench.sessions.loop_speed", lambda: slow)
    done = CliRunner().invoke(app, ["bench", "simulator", "--only", "loop-speed", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["loop-speed"]["figures"][0]["holds"] is False
