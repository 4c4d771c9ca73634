"""Scenario files: what they say, and what is wrong with them."""

import re
from pathlib import Path

import pytest

from foredraft_sim.errors import ScenarioError
from foredraft_sim.scenario.scenario import assumed_in, read_scenario
from foredraft_sim.scenario.scenario_file import Closed, Poisson, Spread, length_of, most_of
from paths import PROFILES, SCENARIOS
from sim.scenario.scenario_files import PAIR, scenario, workload, write


@pytest.mark.parametrize("file", sorted(SCENARIOS.glob("*.toml")), ids=lambda file: file.stem)
def test_every_example_can_be_read(file: Path) -> None:
    read = read_scenario(file)
    assert read.file.title
    assert read.seeds


def test_a_count_of_seeds_means_that_many_and_a_list_means_these(tmp_path: Path) -> None:
    assert scenario(tmp_path, ("seeds = [1, 2]", "seeds = 3")).seeds == (1, 2, 3)
    assert scenario(tmp_path, ("seeds = [1, 2]", "seeds = [7]")).seeds == (7,)


def test_overridden_numbers_take_the_place_of_the_profiles_and_count_as_assumed(tmp_path: Path) -> None:
    read = scenario(tmp_path, ("[link]", "[cloud.override]\ntarget_pass.base_s = 0.5\ncost.idle_w = 1.0\n\n[link]"))
    assert read.target.target_pass.base_s == 0.5  # type: ignore[union-attr]
    assert read.target.target_pass.flat_tokens == 32  # type: ignore[union-attr]
    assert "target_pass.base_s" in assumed_in(read.target)
    assert read.target.provenance["target_pass.base_s"].source == "overridden in scenario.toml"


def test_a_profile_may_lie_beside_the_scenario(tmp_path: Path) -> None:
    shipped = PROFILES / "robot.toml"
    (tmp_path / "mine.toml").write_text(shipped.read_text().replace("0.06,", "0.07,"))
    assert scenario(tmp_path, ('"robot"', '"mine.toml"')).link.up.delay_s == 0.07


def test_a_pair_may_lie_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "pair.toml").write_text('kind = "synthetic"\nranks = [0.5]\n')
    read = scenario(tmp_path, ("[pair]\n" + PAIR, ""), ("seeds = [1, 2]", 'seeds = [1, 2]\npair = "pair.toml"'))
    assert read.pair.ranks == (0.5,)  # type: ignore[union-attr]


def test_lengths_are_fixed_listed_or_drawn_by_the_request_alone() -> None:
    assert length_of(7, 1, "x", 5) == most_of(7) == 7
    assert [length_of((1, 2, 3), 1, "x", request) for request in range(4)] == [1, 2, 3, 1]
    assert most_of((1, 9, 3)) == 9
    drawn = [length_of(Spread(least=2, most=4), 1, "x", request) for request in range(200)]
    assert set(drawn) == {2, 3, 4}
    assert drawn == [length_of(Spread(least=2, most=4), 1, "x", request) for request in range(200)]
    assert most_of(Spread(least=2, most=4)) == 4


def test_arrivals_are_told_by_kind(tmp_path: Path) -> None:
    poisson = scenario(tmp_path, workload(arrivals='{ kind = "poisson", rate_per_s = 2.0 }'))
    assert poisson.workload.arrivals == Poisson(rate_per_s=2.0)
    closed = scenario(tmp_path, workload(arrivals='{ kind = "closed", think_s = 0.5 }'))
    assert closed.workload.arrivals == Closed(think_s=0.5)


BAD = {
    "a misspelt key": (('"robot"', '"robot"\n[workloda]'), "unknown key workloda: did you mean 'workload'?"),
    "a misspelt key in a table": (
        ("new_tokens", "new_token"),
        "unknown key workload.new_token: did you mean 'new_tokens'?",
    ),
    "a unit in the wrong key": (
        workload(arrivals='{ kind = "closed", think_ms = 500 }'),
        "unknown key workload.arrivals.think_ms: did you mean 'think_s'?",
    ),
    "a wrong sign": (workload(requests=-1), "workload.requests = -1"),
    "milliseconds for seconds": (workload(arrivals='{ kind = "closed", think_s = 1e6 }'), "think_s = 1000000.0"),
    "a wrong type": (workload(devices='"many"'), "workload.devices = 'many'"),
    "no such arrivals": (workload(arrivals='{ kind = "bursts" }'), "workload.arrivals"),
    "a misspelt choice": (
        ('"a100-qwen2-vl-7b"', '"a100-qwen2-vl-7b"\nbalance = "affinty"'),
        "cloud.balance = 'affinty': Invalid enum value 'affinty': did you mean 'affinity'?; "
        "known: affinity, least_loaded, round_robin",
    ),
    "an empty range": (workload(new_tokens="{ least = 5, most = 4 }"), "least must be at most most"),
    "a missing profile": (
        ('"robot"', '"robt"'),
        "link.profile = 'robt': unknown hardware profile 'robt': did you mean 'robot'?",
    ),
    "a profile of another kind": (
        ('"robot"', '"a100-qwen2-vl-7b"'),
        "a target profile, where a link profile is needed",
    ),
    "a missing profile file": (('"robot"', '"none/robot.toml"'), "link.profile = 'none/robot.toml'"),
    "an override of what is not there": (
        ("[link]", "[cloud.override]\ntarget_pass.bas_s = 1.0\n[link]"),
        "cloud.override: unknown key target_pass.bas_s: did you mean 'base_s'?",
    ),
    "an override with a wrong sign": (
        ("[link]", "[cloud.override]\ntarget_pass.base_s = -1.0\n[link]"),
        "cloud.override: target_pass.base_s = -1.0",
    ),
    "ranks above one": (("0.58", "0.98"), "ranks must be probabilities with a sum of at most 1"),
    "an exit beyond the layers": (("[24, 0.92]", "[64, 0.92]"), "exits must ascend within the 32 layers"),
    "an unknown policy": (
        ('"cloud", "sync', '"clod", "sync'),
        "policies: 'clod': unknown policy 'clod': did you mean 'cloud'?",
    ),
    "an unknown parameter of a policy": (("sync:gamma", "sync:gama"), "did you mean 'gamma'?"),
    "no policy": (('policies = ["cloud", "sync:gamma=4", "seed:gamma=4"]', "policies = []"), "policies = []"),
    "no seed": (("seeds = [1, 2]", "seeds = []"), "seeds = []"),
    "prompts for a synthetic pair": (workload(prompts='["Hello"]'), "a synthetic pair reads no text"),
    "a request that never fits into memory": (workload(new_tokens=5_000_000), "pair.context"),
    "not TOML": (("[edge]", "[edge"), "not TOML"),
}


def test_a_record_in_the_place_of_a_pair_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    changes = ("[pair]\n" + PAIR, ""), ("seeds = [1, 2]", 'seeds = [1, 2]\npair = "session.rec"')
    with pytest.raises(ScenarioError, match=r"'session\.rec': .*fit-pair writes one, and .*\"recorded\""):
        scenario(tmp_path, *changes)


@pytest.mark.parametrize(("change", "said"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_named_by_file_key_and_value(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    file = write(tmp_path, change)
    with pytest.raises(ScenarioError, match=re.escape(said)) as caught:
        read_scenario(file)
    assert str(caught.value).startswith(str(file))
    assert caught.value.exit_code == 2


def test_a_request_that_memory_cannot_hold_is_refused_before_anything_runs(tmp_path: Path) -> None:
    file = write(tmp_path, ("[link]", "[cloud.override]\nmemory.device_bytes = 16_600_100_000\n[link]"))
    with pytest.raises(ScenarioError, match="it could never begin"):
        read_scenario(file)


def test_a_malformed_trace_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "bad.trace").write_text("1\nnine\n")
    profile = PROFILES / "robot.toml"
    (tmp_path / "mine.toml").write_text(profile.read_text().replace("[up]", '[up]\ntrace = "bad.trace"'))
    with pytest.raises(ScenarioError, match=r"link\.profile = 'mine\.toml', up: .*bad\.trace:2: 'nine'"):
        scenario(tmp_path, ('"robot"', '"mine.toml"'))


def test_models_need_prompts_that_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"workload\.prompts is missing"):
        scenario(tmp_path, (PAIR, 'kind = "models"'))


def test_a_scenario_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        read_scenario(tmp_path / "none.toml")
