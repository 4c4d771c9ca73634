"""Scenarios with a draft model in the cloud: what it saves, and what is said where there is none."""

from pathlib import Path

import pytest

from foredraft_sim.errors import ScenarioError
from foredraft_sim.scenario.finished import Replication
from foredraft_sim.scenario.replications import replicate
from sim.scenario.scenario_files import scenario, workload

WITH_DRAFT = ('profile = "a100-qwen2-vl-7b"', 'profile = "a100-qwen2-vl-7b"\ndraft = "robot-5-draft"')
ONE = workload(prompt_tokens=8, new_tokens=64)


def tpot_s(one: Replication) -> float:
    return one.finished[0].report.e2e_s / 64


def test_a_draft_model_beside_the_target_saves_time_and_round_trips(tmp_path: Path) -> None:
    read = scenario(tmp_path, ONE, WITH_DRAFT)
    cloud, colocated = (replicate(read, policy, 1) for policy in ("cloud", "colocated"))
    assert colocated.finished[0].digest == cloud.finished[0].digest
    assert tpot_s(colocated) < 0.8 * tpot_s(cloud)
    assert colocated.finished[0].report.passes < 40
    assert colocated.devices_busy_s == 0.0


@pytest.mark.parametrize("seed", range(4))
def test_both_placements_at_once_write_the_same_text(tmp_path: Path, seed: int) -> None:
    read = scenario(tmp_path, ONE, WITH_DRAFT)
    cloud, both = (replicate(read, policy, seed) for policy in ("cloud", "both"))
    assert both.finished[0].digest == cloud.finished[0].digest
    assert both.devices_busy_s > 0.0
    assert tpot_s(both) < tpot_s(cloud)


def test_a_scenario_without_such_a_model_refuses_the_policy(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no draft model of its own"):
        replicate(scenario(tmp_path, ONE), "colocated", 1)


def test_an_unknown_profile_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"cloud\.draft = 'robot-6-draft'.*did you mean 'robot-5-draft'"):
        scenario(tmp_path, ONE, (WITH_DRAFT[0], WITH_DRAFT[1].replace("5", "6")))
