"""A scenario that travels arrives whole, also where the files that it names are not."""

import pickle
from pathlib import Path

import pytest

from foredraft_sim.scenario.packing import files_of
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.simulated_record import complete
from paths import ROOT
from sim.scenario.scenario_files import PAIR, scenario, workload


@pytest.fixture
def read(tmp_path: Path) -> Scenario:
    """With a trace for one way of its link, and a recorded pair."""
    spoken = scenario(tmp_path)
    logged = replicate(spoken, "cloud", 1, log=True)
    (tmp_path / "r.rec").write_bytes(complete(spoken, logged.record, logged.recorded))
    (tmp_path / "up.trace").write_text("3\n40\n41\n90\n")
    profile = (ROOT / "hardware_profiles" / "robot.toml").read_text()
    (tmp_path / "mine.toml").write_text(profile.replace("[up]", '[up]\ntrace = "up.trace"'))
    recorded = (PAIR, 'kind = "recorded"\nfile = "r.rec"')
    return scenario(tmp_path, recorded, ('profile = "robot"', 'profile = "mine.toml"'), workload(new_tokens=20))


@pytest.mark.parametrize("instead", [None, b"something else"])
def test_files_that_are_not_there_or_are_others_there_come_with_it(read: Scenario, instead: bytes | None) -> None:
    here = replicate(read, "seed", 1, log=True)
    assert [path.name for path in files_of(read)] == ["up.trace", "r.rec"]
    packed = pickle.dumps(read)
    for path in files_of(read):
        path.unlink() if instead is None else path.write_bytes(instead)
    there = pickle.loads(packed)
    assert there == read
    assert replicate(there, "seed", 1, log=True) == here


def test_a_scenario_without_files_travels_as_it_is(tmp_path: Path) -> None:
    read = scenario(tmp_path)
    assert pickle.loads(pickle.dumps(read)) == read
