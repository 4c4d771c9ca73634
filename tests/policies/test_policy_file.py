"""Policy files: read strictly, written so that they are read to the same, and taken wherever a policy is named."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.cli.generate import policy_spec
from foredraft.errors import ConfigError
from foredraft.policies import make_policy, policy_names
from foredraft.policies.parameters import Parameter, default_of, tunable, with_parameters
from foredraft.policies.policy_file import (
    Origin,
    PolicyFile,
    policy_file_of,
    read_policy_file,
    render_policy_file,
    spec_of,
)
from foredraft_sim.scenario.scenario import read_scenario
from sessions.room import collect, room, text
from sim.scenario.scenario_files import write

ORIGIN = Origin(
    scenario='robot "two".toml',
    scenario_digest="0123",
    study="robot",
    objectives=("p50-tpot", "cost"),
    limits={"p99-tpot": 0.2},
    trials=60,
    seeds=(1, 2),
    held_out_seeds=(3, 4),
    foredraft="0.1.0",
    optuna="5.0.0",
    figures={"p50-tpot": 0.1, "cost": 1e-7},
    held_out={"p50-tpot": 0.11},
)


def written(folder: Path, said: str) -> Path:
    file = folder / "policy.toml"
    file.write_text(said)
    return file


@pytest.mark.parametrize("spec", ["cloud", "sync:gamma=6", "seed:gamma=3,threshold=0.35,exits=8+16", "auto"])
def test_what_is_written_is_read_to_the_same(tmp_path: Path, spec: str) -> None:
    file = policy_file_of(spec, ORIGIN)
    path = written(tmp_path, render_policy_file(file, "a comment\nof two lines"))
    assert read_policy_file(path) == file
    assert make_policy(str(path)) == make_policy(spec)
    assert spec_of(str(path)) == spec


@given(name=st.text(max_size=20), value=st.floats(1e-9, 1e9), seeds=st.lists(st.integers(0, 1 << 40), max_size=4))
def test_any_provenance_survives(tmp_path_factory: pytest.TempPathFactory, name: str, value: float, seeds: Any) -> None:
    origin = Origin(
        scenario=name,
        scenario_digest="",
        study=name,
        objectives=(name,),
        limits={name: value},
        trials=1,
        seeds=tuple(seeds),
        held_out_seeds=(),
        foredraft="",
        optuna="",
    )
    file = PolicyFile(policy="sync", parameters={"gamma": 2}, provenance=origin)
    assert read_policy_file(written(tmp_path_factory.mktemp("policy"), render_policy_file(file))) == file


def test_a_file_by_hand_needs_two_lines(tmp_path: Path) -> None:
    path = written(tmp_path, 'policy = "seed"\nparameters = { gamma = 2 }\n')
    assert repr(make_policy(str(path))) == "SeedPolicy(gamma=2, threshold=0.5, exits=(), name='seed')"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('policy = "sinc"', "unknown policy 'sinc': did you mean 'sync'?"),
        ('policy = "sync"\n[parameters]\ngama = 4', "unknown parameter of policy sync 'gama': did you mean 'gamma'?"),
        ('policy = "sync"\n[parameters]\ngamma = 0', "gamma must be 1 or more, not 0"),
        ('policy = "sync"\n[parameters]\ngamma = 2.5', "gamma must be of type int, not '2.5'"),
        ('policy = "sync"\n[parameter]\ngamma = 2', r"unknown key parameter: did you mean 'parameters'\?"),
        ('policy = "sync"\n[provenance]\nscenari = "x"', r"unknown key provenance.scenari: did you mean 'scenario'\?"),
        ('policy = "sync:gamma=4"', r"a name alone; its parameters go into \[parameters\]"),
        ('policy = "other.toml"', "a name alone"),
        ('policy = "no.module:Own"', "no policy no.module:Own"),
        ("[parameters]\ngamma = 2", "missing required field `policy`"),
        ("policy = sync", "not TOML"),
        ('policy = ".sync:Class"', "give the module's whole name"),
        ('policy = "sync"\n[parameters]\ngamma = 0xffffffffffffffffffff', "more than 64 bits"),
        ('policy = "sync"\n[parameters]\nname = "other"', "unknown parameter of policy sync 'name'"),
        ('policy = "sync"\n[parameters]\ngamma = "4,name=x"', "it has a comma or an equals sign"),
    ],
)
def test_a_bad_file_is_refused_by_its_name_and_what_is_wrong(tmp_path: Path, said: str, message: str) -> None:
    path = written(tmp_path, said)
    with pytest.raises(ConfigError, match=message) as raised:
        make_policy(str(path))
    assert str(raised.value).startswith(str(path))


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        make_policy(str(tmp_path / "none.toml"))


def test_an_option_of_generate_goes_over_the_files(tmp_path: Path) -> None:
    path = written(tmp_path, 'policy = "seed"\nparameters = { gamma = 2, threshold = 0.25 }\n')
    assert make_policy(policy_spec(str(path), gamma=7)) == make_policy("seed:gamma=7,threshold=0.25")


def test_a_scenario_names_a_policy_file_beside_it(tmp_path: Path) -> None:
    written(tmp_path, 'policy = "sync"\nparameters = { gamma = 2 }\n')
    scenario = read_scenario(write(tmp_path, ('["cloud", "sync:gamma=4", "seed:gamma=4"]', '["cloud", "policy.toml"]')))
    assert scenario.file.policies == ("cloud", "sync:gamma=2")


async def test_a_session_runs_by_a_policy_file(tmp_path: Path) -> None:
    here = room()
    session = here.session(str(written(tmp_path, 'policy = "sync"\nparameters = { gamma = 2 }\n')), 20)
    assert await collect(session) == text(20)
    await here.left()


@pytest.mark.parametrize("name", policy_names())
def test_declared_parameters_are_fields_with_their_defaults_in_range(name: str) -> None:
    for parameter in tunable(name):
        extremes = (parameter.least, default_of(name, parameter), parameter.most)
        for value in extremes:
            make_policy(with_parameters(name, {parameter.name: parameter.said(value)}))


def test_what_is_given_is_not_tunable() -> None:
    assert [one.name for one in tunable("seed")] == ["gamma", "threshold"]
    assert [one.name for one in tunable("seed:gamma=2")] == ["threshold"]
    assert tunable("cloud") == ()


def test_values_that_can_be_counted_are_listed() -> None:
    assert Parameter("gamma", 1, 4).values() == [1, 2, 3, 4]
    assert Parameter("share", 0.0, 0.3, step=0.1).values() == [0.0, 0.1, 0.2, 0.3]
    assert Parameter("reach", 0.001, 0.3, log=True).count() is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"least": 3, "most": 3},
        {"least": 1, "most": float("inf")},
        {"least": 0, "most": 3, "log": True},
        {"least": 0, "most": 3, "step": 0.5},
        {"least": 0.0, "most": 3.0, "step": -1.0},
    ],
)
def test_a_range_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="parameter wrong"):
        Parameter("wrong", **wrong)
