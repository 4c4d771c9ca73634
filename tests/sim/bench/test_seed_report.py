"""The seed's claims beside simulated figures, and the search for machines that are consistent with them."""

from dataclasses import replace

import msgspec
import pytest

from foredraft_sim.bench.seed_report import PER_TOKEN, at_point, nano_lines, robot_lines, simulated
from foredraft_sim.bench.seed_search import FURTHER, LOWER, READINGS, Machine, consistent
from foredraft_sim.scenario.replications import replicate_all
from foredraft_sim.scenario.scenario import Scenario, read_scenario
from foredraft_sim.workers.processes import Processes
from foredraft_sim.workers.workers import Here
from paths import SCENARIOS


def short(name: str, tokens: int = 40) -> Scenario:
    """One of the examples, one seed, few tokens."""
    read = read_scenario(SCENARIOS / f"{name}.toml")
    work = msgspec.structs.replace(read.file.workload, new_tokens=tokens)
    return replace(read, file=msgspec.structs.replace(read.file, seeds=1, workload=work))


def test_the_robot_s_report_has_the_claim_all_policies_and_what_is_assumed() -> None:
    text = "\n".join(robot_lines(short("robot")))
    for word in (
        "1.21x",
        "cloud, streamed",
        "cloud, per token",
        "sync:gamma=4",
        "seed:gamma=4",
        "ASSUMED",
        "ranks [0.58",
    ):
        assert word in text


def test_a_baseline_without_streaming_pays_a_round_trip_per_token() -> None:
    found = simulated(short("robot"), ["cloud", PER_TOKEN])
    assert found["cloud"].token_ms == pytest.approx(620.0)
    assert found[PER_TOKEN].token_ms == pytest.approx(740.0)


def test_every_machine_found_meets_both_claims_by_its_closed_form() -> None:
    for prediction in READINGS:
        for machine in consistent("one round trip per token", prediction):
            assert machine.lower("one round trip per token", prediction) == pytest.approx(LOWER, abs=0.0101)
            most_ms = min(machine.gamma * machine.draft_step_ms, 0.75 * machine.pass_ms)
            assert machine.hits_needed * most_ms == pytest.approx(FURTHER * machine.round_ms)
            assert machine.hits_needed <= 1.0


def test_the_closed_form_is_what_the_deployed_code_does() -> None:
    machine = Machine(draft_step_ms=8.0, pass_ms=22.0, round_trip_ms=10.0, acceptance=0.6, gamma=4)
    found = simulated(at_point(short("nano-a100", 600), machine), ["cloud", "sync:gamma=4"])
    assert found["cloud"].token_ms == pytest.approx(machine.cloud_ms("streamed"))
    assert found["sync:gamma=4"].token_ms == pytest.approx(machine.round_ms / machine.tokens, rel=0.1)


def test_a_scenario_changed_in_memory_is_the_one_that_other_processes_run() -> None:
    machine = Machine(draft_step_ms=8.0, pass_ms=22.0, round_trip_ms=10.0, acceptance=0.6, gamma=4)
    changed = at_point(short("nano-a100", 8), machine)
    here = replicate_all(changed, ["cloud"], [1, 2], workers=Here())
    with Processes(2) as workers:
        assert replicate_all(changed, ["cloud"], [1, 2], workers=workers) == here


def test_the_nano_s_report_says_how_many_machines_are_consistent_and_tries_some() -> None:
    text = "\n".join(nano_lines(short("nano-a100", 30)))
    assert text.count("of 36,288") == 4
    assert "baseline streamed; 35% contains the 11%: 33 of" in text
    assert "draft step 5 to 6 ms" in text
    assert "ASSUMED" in text
