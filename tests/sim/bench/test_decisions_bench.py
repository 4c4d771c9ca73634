"""The part of ``foredraft bench policies`` about deadlines."""

import json
from math import inf
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from foredraft.errors import ConfigError
from foredraft_sim.bench.policies.command import policies
from foredraft_sim.bench.policies.decisions import NOT_TOLD, Decisions, cloud_median_s, try_decisions
from foredraft_sim.bench.policies.missed import TIMES_MEDIAN, decisions
from foredraft_sim.bench.policies.setting import Outcome
from paths import PROFILES, SHARED

TRACE = "Verizon-LTE-short"

app = typer.Typer()
app.command()(policies)
app.command()(lambda: None)  # so that the first is a command of its own name


def traced(folder: Path) -> Path:
    """The cellular profile with a recorded trace."""
    for way in ("up", "down"):
        trace = SHARED / "link_traces" / f"{TRACE}.{way}"
        if not trace.is_file():
            pytest.skip(f"no recorded traces at {trace.parent}")
        (folder / f"{way}link.trace").symlink_to(trace)
    file = folder / "cellular.toml"
    file.write_text((PROFILES / "cellular-trace.toml").read_text())
    return file


def test_half_of_what_the_cloud_streams_is_later_than_its_median() -> None:
    where = Decisions("robot", 1.0, 10)
    assert try_decisions(where, "cloud", 1).missed == pytest.approx(0.5)
    assert where.scenario(2.0).workload.deadline_s == 2.0
    assert where.scenario(None).workload.deadline_s is None


def test_more_time_means_that_less_is_missed() -> None:
    missed = [try_decisions(Decisions("robot", times, 10), "sync", 1).missed for times in (0.5, 1.0, 2.0, 9.0)]
    assert missed == sorted(missed, reverse=True)
    assert missed[0] > missed[-1] == 0.0


def test_who_is_not_told_of_a_deadline_misses_what_takes_longer() -> None:
    where = Decisions("robot", 0.5, 10)
    told, not_told = (try_decisions(where, policy, 1) for policy in ("auto", NOT_TOLD))
    assert not_told.tokens > told.tokens  # its texts go on beyond the deadline
    assert 0.0 < not_told.missed < 1.0


def test_a_recorded_trace_is_a_link_like_others(tmp_path: Path) -> None:
    link = str(traced(tmp_path))
    assert cloud_median_s(Decisions(link, 1.0, 10)) > cloud_median_s(Decisions("wifi", 1.0, 10))
    result = CliRunner().invoke(
        app, ["policies", "--quick", "--only", "decisions", "--processes", "1", "--link", link, "--json"]
    )
    said = json.loads(result.stdout)["decisions"]
    assert [(row["link"], row["of cloud's median"]) for row in said["rows"]] == [
        (link, times) for link in ("robot", "cellular") for times in TIMES_MEDIAN
    ]


def test_a_link_that_there_is_not_is_refused_by_name() -> None:
    result = CliRunner().invoke(app, ["policies", "--quick", "--only", "decisions", "--link", "none.toml"])
    assert isinstance(result.exception, ConfigError)
    assert "none.toml" in str(result.exception)


@pytest.mark.parametrize(("auto", "cloud", "ratio"), [(0.1, 0.4, 0.25), (0.0, 0.0, 0.0), (0.1, 0.0, inf)])
def test_what_auto_misses_is_held_against_what_the_cloud_misses_at_one_and_a_half_medians(
    auto: float, cloud: float, ratio: float
) -> None:
    suite = decisions((1, 2), ("robot",), 10)
    said = {"auto": auto, "cloud": cloud}
    outcomes = {trial: outcome(said.get(trial.policy, 0.5)) for trial in suite.trials}
    rows, (figure,) = suite.judge(outcomes)
    assert [row["auto"] for row in rows] == pytest.approx([auto] * 3)
    assert figure.value == pytest.approx(ratio)
    assert figure.bound == 0.5
    assert figure.holds == (ratio <= 0.5)


def test_where_streaming_is_hard_to_beat_there_is_no_bound() -> None:
    suite = decisions((1,), ("lte",), 10, fast=True)
    _, (figure,) = suite.judge({trial: outcome(0.5) for trial in suite.trials})
    assert (figure.value, figure.bound, figure.holds) == (1.0, None, None)


def outcome(missed: float) -> Outcome:
    return Outcome(1.0, 256, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, None, None, missed)
