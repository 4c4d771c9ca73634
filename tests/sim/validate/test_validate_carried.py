"""How many devices a server carries, planned and really: the search, what is judged and printed, and the runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from foredraft.cli.main import app
from foredraft.profiles import load_profile
from foredraft_sim.validate.carried import CARRIED, MOST_OFF, TIMES, Carried, searched, validate_carried
from foredraft_sim.validate.crowd import Crowd, Ran
from foredraft_sim.validate.sessions import Cores
from sim.validate.test_validate_crowd import target


def carried(planned: int, real: int = 20) -> Carried:
    profile = load_profile("robot-5-target", "target")
    return Carried(CARRIED, profile, 0.02, real, planned, {1: 0.008, real: 0.019}, {1: 0.008, planned: 0.0195})


@pytest.mark.parametrize("edge", [0, 1, 7, 30])
def test_the_search_finds_how_many_keep_the_objective_by_the_fastest_run(edge: int) -> None:
    asked: list[tuple[int, int]] = []

    def run(devices: int, luck: int) -> Ran:
        asked.append((devices, luck))
        return Ran(1.0, 1.0, 9.0 if luck == 0 else 0.5 if devices <= edge else 1.5)  # one run of three is odd

    most, found_s = searched(Crowd(runs=3), 1.0, 48, run)
    assert edge * 0.95 - 1 <= most <= edge
    assert {devices: 0.5 if devices <= edge else 1.5 for devices in found_s} == found_s
    assert len(asked) == 3 * len(found_s)


@pytest.mark.parametrize(("planned", "missed"), [(20, False), (22, False), (18, False), (23, True), (17, True)])
def test_a_plan_that_is_off_by_more_than_a_tenth_is_named(planned: int, missed: bool) -> None:
    one = carried(planned)
    assert bool(one.missed()) == missed == one.lines()[0].startswith("MISSED")
    assert f"{planned} devices planned, 20 carried" in one.lines()[0]
    assert "real 1: 8.0, 20: 19.0" in one.lines()[2]
    assert carried(1, real=0).missed()


@pytest.mark.parametrize(("planned", "code"), [(21, 0), (30, 1)])
def test_the_command_prints_writes_and_exits_by_what_is_off(
    planned: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foredraft_sim.validate.carried.validate_carried", lambda *_, **__: carried(planned))
    result = CliRunner().invoke(app, ["validate", "--only", "capacity", "--out", str(tmp_path)])
    assert result.exit_code == code, result.output
    plain = json.loads((tmp_path / "validation.json").read_text())["capacity"]
    assert (plain["planned"], plain["real"], plain["bound"]) == (planned, 20, MOST_OFF)
    assert (tmp_path / "robot-5-target.toml").is_file()
    assert f"{planned} devices planned, 20 carried" in result.output


@pytest.mark.timeout(600)
def test_real_edges_and_planned_ones_are_searched_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server, sockets and edges on one side; how many it carries depends on the machine."""
    monkeypatch.setattr("foredraft_sim.validate.carried.measured_target", lambda *_, **__: target())
    crowd = replace(CARRIED, requests=1, new_tokens=(4, 6), think_s=0.01, runs=1)
    done = validate_carried(crowd, Cores(None, None, "anywhere"), force=True, most=2)
    assert set(done.real_s) <= {1, 2}
    assert set(done.planned_s) <= {1, 2}
    assert done.most_s > 0.0
    assert all(taken_s > 0.0 for taken_s in (*done.real_s.values(), *done.planned_s.values()))
    assert TIMES > 1.0
