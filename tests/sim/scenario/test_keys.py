"""Keys in a scenario: whose devices they are, and that one key's floods do not slow another's texts."""

from pathlib import Path
from typing import Any

import pytest

from foredraft_sim.errors import ScenarioError
from foredraft_sim.scenario.replications import replicate_all
from foredraft_sim.scenario.results import summarise
from foredraft_sim.scenario.scenario import Scenario, read_scenario
from foredraft_sim.workers.workers import Here

BASE = """
policies = ["cloud"]
seeds = 1
[edge]
profile = "raspberry-pi-5-vicuna-68m"
connected = true
[cloud]
profile = "a100-llama2-7b-eager"
[link]
profile = "robot-5"
[pair]
kind = "synthetic"
ranks = [0.6, 0.1]
layers = 32
[workload]
devices = {devices}
requests = {requests}
prompt_tokens = 32
new_tokens = 24
arrivals = {{ kind = "closed", think_s = 0.05 }}
"""
QUIET = '[[keys]]\nname = "quiet"\nweight = {weight}\n'
FLOOD = '[[keys]]\nname = "flood"\ndevices = {devices}\nprompt_tokens = 1500\nnew_tokens = 4\n'


def scenario(tmp_path: Path, *, floods: int, weight: float = 1.0) -> Scenario:
    """A quiet device, and others that flood."""
    text = BASE.format(devices=1 + floods, requests=8 * (1 + floods))
    text += QUIET.format(weight=weight) + (FLOOD.format(devices=floods) if floods else "")
    (path := tmp_path / "keys.toml").write_text(text)
    return read_scenario(path)


def of_quiet(read: Scenario) -> dict[str, Any]:
    said = summarise(read, replicate_all(read, ["cloud"], [1], workers=Here()))["policies"][0]
    found: dict[str, Any] = said["by_key"]["quiet"]
    return found


def test_beside_a_key_that_floods_a_token_takes_at_most_as_long_as_half_of_the_server_makes_it(tmp_path: Path) -> None:
    alone = of_quiet(scenario(tmp_path, floods=0))["tpot_s"]["p99"]
    beside = of_quiet(scenario(tmp_path, floods=12))["tpot_s"]["p99"]
    assert beside <= 2.2 * alone


def test_a_heavier_key_is_slowed_less(tmp_path: Path) -> None:
    light, heavy = (of_quiet(scenario(tmp_path, floods=12, weight=weight))["e2e_s"]["p50"] for weight in (0.02, 1.0))
    assert heavy < light


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("devices = 12\nprompt", "devices = 11\nprompt"), "keys: 12 devices have one, and workload.devices is 13"),
        (('name = "flood"', 'name = "quiet"'), "keys: two have the same name"),
        (("prompt_tokens = 1500", "prompt_tokens = 150000"), "one request of 150024 tokens"),
        (("weight = 1.0", "weight = 0.0"), "weight"),
    ],
)
def test_keys_that_cannot_be_are_refused_by_name(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    text = BASE.format(devices=13, requests=26) + QUIET.format(weight=1.0) + FLOOD.format(devices=12)
    assert change[0] in text
    (path := tmp_path / "wrong.toml").write_text(text.replace(*change))
    with pytest.raises(ScenarioError, match=said):
        read_scenario(path)
