"""`foredraft profile device`: a profile comes out that reads back and says what it rests on, or nothing does."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from engines.gate import Gate
from foredraft.api.loading import ModelOptions, load_drafter, load_target
from foredraft.calibration import device as measuring_devices
from foredraft.calibration.batched import Mixed
from foredraft.calibration.device import Hint, Measured, measure
from foredraft.calibration.fitting import Call, Fit, Point
from foredraft.calibration.report import device_lines
from foredraft.calibration.request import Wanted
from foredraft.calibration.shapes import random_model
from foredraft.cli.main import app
from foredraft.engines.torch_model import LoadedModel
from foredraft.errors import ConfigError, ForedraftError, ProfileError, UnknownNameError
from foredraft.profiles import (
    DraftProfile,
    Line,
    Model,
    Profile,
    Range,
    TargetProfile,
    check_model,
    load_profile,
    outside,
    parse_profile,
    read_profile,
    render_profile,
    seconds,
)
from foredraft_sim.errors import ScenarioError
from foredraft_sim.scenario.pairs import token_source
from foredraft_sim.scenario.scenario import read_scenario

QUICK = ModelOptions(threads=1)


def run(wanted: Wanted) -> Measured:
    return asyncio.run(measure(wanted))


@pytest.fixture(scope="module")
def tiny_target() -> Measured:
    return run(Wanted("mine", shape="tiny", options=QUICK, tokens=(1, 4, 8), contexts=(1, 64), repeats=3))


def read_back(profile: Profile, folder: Path) -> Profile:
    path = folder / f"{profile.name}.toml"
    path.write_text(render_profile(profile), encoding="utf-8")
    return read_profile(path)


def test_a_target_of_random_weights_is_measured_with_its_exits(tiny_target: Measured, tmp_path: Path) -> None:
    profile = read_back(tiny_target.profile, tmp_path)
    assert isinstance(profile, TargetProfile)
    assert profile.model.layers == 8
    assert profile.model.digest == ""  # random weights lend their times to any model
    assert 0.0 < seconds(profile.target_pass, 4, 64) < 5.0
    assert outside(profile.target_pass, 9, 64)
    assert "random" in profile.notes
    assert all("random weights" in origin.source for at, origin in profile.provenance.items() if at != "model.layers")
    assert sorted(tiny_target.hints) == [2, 4, 6]
    assert {hint.passes for hint in tiny_target.hints.values()} == {3 * (3 * 2 + 2)}


def test_the_file_says_machine_versions_range_and_held_out_error(tiny_target: Measured, tmp_path: Path) -> None:
    profile = read_back(tiny_target.profile, tmp_path)
    assert isinstance(profile, TargetProfile)
    assert profile.machine is not None
    assert "torch" in profile.machine.software
    assert "1 thread" in profile.machine.settings
    assert profile.target_pass.range == Range(new_tokens=(1, 8), context=(0, 64))
    assert "held-out" in profile.notes
    assert profile.target_pass == tiny_target.fits["target_pass"].curve
    assert profile.target_pass.host_s > 0.0
    assert profile.host.opening_s > 0.0


def test_a_draft_of_random_weights_is_measured(tmp_path: Path) -> None:
    wanted = Wanted("mine", role="draft", shape="tiny", options=QUICK, tokens=(1, 2, 4), contexts=(1, 64), repeats=3)
    profile = read_back(run(wanted).profile, tmp_path)
    assert isinstance(profile, DraftProfile)
    assert profile.prefill is not None
    assert profile.prefill.range == Range(new_tokens=(1, 256), context=(0, 64))
    assert profile.draft_step.host_s > 0.0


def test_the_ngram_drafter_is_measured_too() -> None:
    found = run(Wanted("mine", role="draft", model="ngram", tokens=(1, 2), contexts=(1, 64), repeats=3))
    assert found.profile.model.name == "n-gram lookup"


def test_batches_of_the_engine_are_measured_and_declared(gate: Gate) -> None:
    wanted = Wanted("mine", shape="tiny", options=QUICK, tokens=(1, 4), contexts=(1, 32), batches=(1, 2, 8), repeats=3)
    found = run(wanted)
    assert isinstance(found.profile, TargetProfile)
    assert found.profile.target_pass.range.batch == (1, 8)
    assert found.profile.target_pass.range.new_tokens == (1, 32)
    assert Call(4 * 8, 32 * 8, 8) in {point.call for point in found.fits["target_pass"].points}
    assert {4 * 8, 8, 7 + 128} <= set(gate.rows)  # eight sessions in one forward; a chunk beside seven
    assert Mixed(128, 7, 32) in found.mixed
    assert "Prefills beside passes: 12 kinds of forwards" in found.profile.notes
    assert any("a prefill of 128 beside 7 passes, over 32 tokens each" in line for line in device_lines(found))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Counts the rows of each forward of the model that is measured."""
    with ExitStack() as stack:
        counted = Gate()

        def watched(*arguments: Any) -> LoadedModel:
            model = random_model(*arguments)
            hook = model.layers[0].register_forward_pre_hook(partial(counted._before, 0))
            stack.callback(hook.remove)
            return model

        monkeypatch.setattr("foredraft.calibration.shapes.random_model", watched)
        yield counted


def test_a_batch_that_the_target_has_no_memory_for_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foredraft.calibration.request._CACHE_BYTES", 1 << 20)
    wanted = Wanted("mine", shape="tiny", options=QUICK, tokens=(1, 2), contexts=(1, 64), batches=(1, 16), repeats=3)
    found = run(wanted)
    assert any(line.startswith("a batch of 16 over 64 tokens each (") for line in found.left_out)


def found(variation: float = 0.05, late: int = 0) -> Measured:
    curve = Line(base_s=0.01, range=Range(new_tokens=(1, 8), context=(0, 64)))
    profile = TargetProfile(name="mine", title="t", kind="target", model=Model(name="m", layers=4), target_pass=curve)
    point = Point(Call(1, 1), 0.01, 0.001, 9)
    fit = Fit(curve, (point,), ((point, 0.02),))
    return Measured(profile, {"target_pass": fit}, variation, {2: Hint(0.5, 0.5, 9)}, hints_late=late)


def test_a_noisy_machine_is_refused_and_a_quiet_one_is_not() -> None:
    found().check()
    with pytest.raises(ConfigError, match=r"varied by 35%, more than 20%.*--force"):
        found(variation=0.35).check()


def test_hints_that_come_too_late_to_help_are_refused() -> None:
    with pytest.raises(ConfigError, match="in 3 of 9 passes an exit spoke no earlier than the verdict"):
        found(late=3).check()
    assert any("3" in line and "no earlier" in line for line in device_lines(found(late=3)))


def test_the_table_shows_each_point_and_the_errors() -> None:
    said = "\n".join(device_lines(found()))
    assert "10.000" in said
    assert "off by 2.0% (median), 2.0% (worst)" in said
    assert "every hint left early" in said


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["profile", "device", *arguments])
    return result.exit_code, result.output


TINY = ("--name", "mine", "--shape", "tiny", "--repeats", "3", "--tokens", "1,2", "--contexts", "1,16")


def test_the_command_writes_a_file_that_reads_back(tmp_path: Path) -> None:
    code, said = invoke(*TINY, "--out", str(tmp_path), "--force", "--json")
    assert code == 0, said
    plain = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    assert plain["fits"]["target_pass"]["held_out"]["median_error"] >= 0.0
    assert len(plain["fits"]["target_pass"]["points"]) == 4
    assert load_profile(tmp_path / "mine.toml", "target").name == "mine"


def test_on_a_noisy_machine_the_command_writes_nothing_unless_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring_devices, "NOISIEST", -1.0)
    code, said = invoke(*TINY, "--out", str(tmp_path))
    assert code == 2
    assert "--force" in said
    assert not list(tmp_path.iterdir())
    assert invoke(*TINY, "--out", str(tmp_path), "--force")[0] == 0
    assert (tmp_path / "mine.toml").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shape", "llama3"), "unknown shape 'llama3'"),
        (("--role", "cloud"), "unknown role 'cloud'"),
        (("--shape", "tiny", "--model", "x"), "leave those out"),
        (("--exit-layers", "2"), "--exit-layers is for --shape"),
        (("--shape", "tiny", "--exit-layers", "9"), "below 8"),
        (("--shape", "tiny", "--tokens", "1,x"), "with commas between"),
        (("--shape", "tiny", "--contexts", "600"), "ask for shorter --contexts"),
        (("--shape", "tiny", "--role", "draft", "--batches", "8"), "--batches is for targets"),
        (("--shape", "tiny", "--dtype", "int3"), "unknown dtype"),
        (("--shape", "tiny", "--device", "warp"), "'cpu' always can"),
        (("--shape", "tiny", "--out", "/nowhere/at/all"), "no folder"),
    ],
)
def test_what_cannot_be_done_is_said_with_exit_code_2(arguments: tuple[str, ...], said: str) -> None:
    code, output = invoke("--name", "mine", *arguments)
    assert code == 2
    assert said in " ".join(output.split())


def test_a_name_that_is_none_of_a_file_is_refused() -> None:
    assert invoke("--name", "../mine")[0] == 2


def stamped(profile: Profile, folder: Path) -> Path:
    """A shipped profile as if it had been measured with some other model."""
    assert isinstance(profile, DraftProfile | TargetProfile)
    other = msgspec.structs.replace(profile, model=msgspec.structs.replace(profile.model, digest="0" * 32))
    path = folder / f"{profile.name}.toml"
    path.write_text(render_profile(other), encoding="utf-8")
    return path


@pytest.mark.parametrize("load", ["target", "draft"])
def test_a_profile_of_another_model_paces_nothing(load: str, tmp_path: Path) -> None:
    pace = stamped(load_profile(f"robot-5-{load}"), tmp_path)
    loads: dict[str, Callable[[], object]] = {
        "target": lambda: load_target("demo", None, ModelOptions(pace=pace), cache_bytes=1 << 28, max_slots=1),
        "draft": lambda: load_drafter("demo", ModelOptions(pace=pace)),
    }
    with pytest.raises(ProfileError, match=r"measured with another model.*0{32}.*foredraft profile device"):
        loads[load]()


def test_a_scenario_with_a_profile_of_another_model_is_refused(tmp_path: Path) -> None:
    stamped(load_profile("robot-5-target"), tmp_path)
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(
        'policies = ["cloud"]\npair = "demo"\n[edge]\nprofile = "robot-5-draft"\n[cloud]\n'
        'profile = "./robot-5-target.toml"\n[link]\nprofile = "robot-5"\n[workload]\nprompts = ["def"]\n'
    )
    with pytest.raises(ScenarioError, match=r"cloud\.profile.*measured with another model"):
        token_source(read_scenario(scenario))


def test_a_profile_without_a_digest_lends_its_times_to_any_model() -> None:
    check_model(load_profile("robot-5-target", "target"), "1" * 32)


def test_a_file_without_the_new_keys_still_reads_and_an_unknown_one_is_named() -> None:
    text = render_profile(load_profile("robot-5-target"))
    profile = parse_profile(text, Path("x.toml"))
    assert isinstance(profile, TargetProfile)
    assert profile.machine is None
    with pytest.raises(ProfileError, match=r"unknown key machine\.cpu"):
        parse_profile(text + '\n[machine]\ncpu = "x"\n', Path("x.toml"))


def test_errors_are_of_this_project() -> None:
    with pytest.raises(UnknownNameError):
        run(Wanted("mine", shape="nothing"))
    assert issubclass(ConfigError, ForedraftError)
