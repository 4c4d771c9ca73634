"""Deadlines in scenarios: who misses them, and what a summary, a table and a study say of it."""

from pathlib import Path

import pytest

from foredraft.errors import ConfigError
from foredraft_sim.errors import ScenarioError
from foredraft_sim.scenario.replications import replicate, replicate_all
from foredraft_sim.scenario.results import figures_of, summarise
from foredraft_sim.tune.command import search_of
from foredraft_sim.tune.metrics import metrics_of
from sim.scenario.scenario_files import scenario, workload, write
from sim.scenario.test_simulate_cli import simulate

PASS_S = 0.62


def within(seconds: float, **more: object) -> tuple[str, str]:
    """A change: texts of 24 tokens are wanted within so many seconds; the cloud alone takes about 15."""
    return workload(prompt_tokens=8, new_tokens=24, deadline_s=seconds, **more)


@pytest.mark.parametrize(("deadline_s", "missed"), [(0.01, 1.0), (10.0, 1.0), (20.0, 0.0)])
def test_a_text_that_is_not_complete_at_its_deadline_is_missed_and_ends_there(
    tmp_path: Path, deadline_s: float, missed: float
) -> None:
    here = scenario(tmp_path, within(deadline_s))
    one = replicate(here, "cloud", 1)
    assert figures_of(here, one)["missed"] == missed
    assert one.duration_s <= max(deadline_s, 24 * PASS_S + 1.0)
    assert one.finished[0].report.new_tokens == (24 if not missed else one.finished[0].report.new_tokens)


def test_without_deadlines_nothing_is_said_of_them(tmp_path: Path) -> None:
    here = scenario(tmp_path)
    assert figures_of(here, replicate(here, "cloud", 1))["missed"] is None
    assert "missed" not in simulate(write(tmp_path)).stdout


def test_a_deadline_counts_from_the_arrival_and_the_wait_for_the_device_is_in_it(tmp_path: Path) -> None:
    here = scenario(tmp_path, within(20.0, requests=3))
    one = replicate(here, "cloud", 1)
    assert [text.missed for text in one.finished] == [False, True, True]
    assert one.finished[2].report.new_tokens == 0
    assert one.duration_s == pytest.approx(20.0, abs=1.0)


def test_texts_that_a_deadline_cut_off_are_not_taken_for_other_texts(tmp_path: Path) -> None:
    here = scenario(tmp_path, within(12.0))
    said = summarise(here, replicate_all(here, ["cloud", "ahead"], [1, 2]))
    assert [policy["missed"] for policy in said["policies"]] == [1.0, 0.0]
    assert said["same_texts"]


def test_figures_per_token_of_no_token_are_unknown(tmp_path: Path) -> None:
    here = scenario(tmp_path, within(0.01))
    said = summarise(here, replicate_all(here, ["cloud"], [1]))["policies"][0]
    assert said["new_tokens"] == 0.0
    assert said["cost_usd_per_million_tokens"] is said["edge_j_per_token"] is None


def test_the_table_has_the_share_that_was_missed(tmp_path: Path) -> None:
    done = simulate(write(tmp_path, within(12.0)))
    assert done.exit_code == 0, done.output
    assert "missed deadlines, %" in done.stdout


def test_what_a_device_learned_serves_its_next_text_where_the_scenario_says_so(tmp_path: Path) -> None:
    texts = workload(prompt_tokens=8, new_tokens=12, requests=6)
    forgetful = replicate(scenario(tmp_path, texts), "auto", 1)
    learns = ('profile = "orin-go2-qwen2-vl-2b"', 'profile = "orin-go2-qwen2-vl-2b"\nlearns = true')
    learned = replicate(scenario(tmp_path, texts, learns), "auto", 1)
    assert learned.finished[0].report.passes == forgetful.finished[0].report.passes
    later = [sum(text.report.passes for text in one.finished[1:]) for one in (learned, forgetful)]
    assert later[0] < later[1]


def test_missed_deadlines_can_be_tuned_for(tmp_path: Path) -> None:
    here = scenario(tmp_path, within(12.0))
    assert metrics_of(here, [replicate(here, "cloud", seed) for seed in (1, 2)])["missed"] == 1.0
    search = search_of(write(tmp_path, within(12.0)), ["seed"], ["missed"], [], "1")
    assert search.measure("ahead")["missed"] == 0.0


def test_to_tune_for_them_there_must_be_some(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missed: .*no request has a deadline; say one .*deadline_s"):
        search_of(write(tmp_path), ["seed"], ["missed"], [], "")


@pytest.mark.parametrize("seconds", [0.0, -2.0, 1e9])
def test_a_deadline_that_is_none_is_refused_with_its_key(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(ScenarioError, match="deadline_s"):
        scenario(tmp_path, within(seconds))
