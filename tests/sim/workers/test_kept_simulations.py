"""Simulations, plans and benches whose results are kept come to what one run makes, to the bit, whoever works."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest
from typer.testing import CliRunner

from foredraft.cli.main import app
from foredraft.errors import ConfigError
from foredraft_sim.bench.policies.command import run_all, storage_for
from foredraft_sim.bench.policies.decisions import Decisions
from foredraft_sim.bench.policies.drift import Drift
from foredraft_sim.bench.policies.setting import Setting, Times
from foredraft_sim.bench.policies.suite import Trial, run_one
from foredraft_sim.scenario.replications import replicate_all
from foredraft_sim.scenario.simulated_record import complete
from foredraft_sim.workers.processes import Processes
from foredraft_sim.workers.workers import Here
from paths import ROOT
from sim.scenario.scenario_files import PAIR, scenario, workload, write
from sim.workers.keeping import keeping, kept_in, summary
from sim.workers.tasks import HOLD

HELD = "sim.workers.tasks:Held"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.mark.parametrize("under", ["", "below"])
def test_a_folder_that_cannot_be_is_said_before_anything_runs(tmp_path: Path, under: str) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(
        app, ["simulate", str(write(tmp_path)), "--storage", str(folder := tmp_path / "file" / under)]
    )
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert f"--storage {folder}: no folder can be made there" in done.stderr


def test_real_models_are_refused_as_nothing_tells_whether_they_are_the_same(tmp_path: Path) -> None:
    file = write(tmp_path, (f"[pair]\n{PAIR}", '[pair]\nkind = "models"'), workload(prompts='["a"]', new_tokens=4))
    done = CliRunner().invoke(app, ["simulate", str(file), "--storage", str(tmp_path / "kept")])
    assert done.exit_code == 2
    assert "cannot tell whether real models are still the same; leave it out, or record them once" in done.stderr
    assert not (tmp_path / "kept").exists()


OUT = "{ start_s = 1.0, duration_s = 0.5, cuts = true }"
LOSSY = f'profile = "lte"\noverride = {{ outages = [{OUT}] }}'
OFTEN = '{ kind = "poisson", rate_per_s = 2 }'
FLEET = workload(prompt_tokens=8, new_tokens=16, devices=6, requests=12, arrivals=OFTEN)
LATE = workload(prompt_tokens=8, new_tokens=24, requests=3, deadline_s=4.0)
ISLANDS = ('profile = "a100-qwen2-vl-7b"', 'profile = "a100-qwen2-vl-7b"\nservers = 5\nbalance = "affinity"')


@pytest.mark.parametrize(
    ("changes", "log"),
    [([], True), ([('profile = "robot"', LOSSY), FLEET], False), ([LATE], False), ([ISLANDS, FLEET], False)],
    ids=["recorded", "lossy", "deadlines", "islands"],
)
def test_results_that_were_kept_are_those_of_a_run_to_the_bit_whoever_works(
    tmp_path: Path, folder: Path, changes: list[tuple[str, str]], log: bool
) -> None:
    read = scenario(tmp_path, *changes)
    asked = (["cloud", "seed", "auto"], [1, 2])
    right = repr(replicate_all(read, *asked, log=log, workers=Here()))
    with keeping(folder) as (workers, storage):
        assert repr(replicate_all(read, *asked, log=log, workers=workers)) == right
    with Processes(2) as two, keeping(folder, two) as (workers, again):
        assert repr(replicate_all(read, *asked, log=log, workers=workers)) == right
    new = len(kept_in(folder))
    assert (storage.summary(), again.summary()) == (summary(folder, 0, new), summary(folder, new, 0))


def test_of_a_recorded_pair_and_a_trace_the_contents_count(tmp_path: Path, folder: Path) -> None:
    spoken = scenario(tmp_path)
    profile = (ROOT / "hardware_profiles" / "robot.toml").read_text()
    (tmp_path / "mine.toml").write_text(profile.replace("[up]", '[up]\ntrace = "up.trace"'))
    trace, record = tmp_path / "up.trace", tmp_path / "r.rec"

    def found(seed: int, times: str) -> str:
        logged = replicate_all(spoken, ["cloud"], [seed], log=True, workers=Here())[0]
        record.write_bytes(complete(spoken, logged.record, logged.recorded))
        trace.write_text(times)
        changes = ((PAIR, 'kind = "recorded"\nfile = "r.rec"'), ('profile = "robot"', 'profile = "mine.toml"'))
        read = scenario(tmp_path, *changes, workload(new_tokens=20))
        with keeping(folder) as (workers, storage):
            replicate_all(read, ["cloud", "sync"], [1], workers=workers)
        return storage.summary()

    assert found(1, "3\n40\n") == summary(folder, 0, 2)
    assert found(1, "3\n40\n") == summary(folder, 2, 0)
    assert found(1, "3\n41\n") == summary(folder, 0, 2)
    assert found(2, "3\n40\n") == summary(folder, 0, 2)


def test_names_of_results_do_not_depend_on_the_process(tmp_path: Path) -> None:
    write(tmp_path, ISLANDS, FLEET, ('profile = "robot"', LOSSY))
    code = f"""
from pathlib import Path
from foredraft_sim.bench.policies.suites import suites
from foredraft_sim.bench.policies.peers import suites as peers
from foredraft_sim.bench.policies.suite import run_one
from foredraft_sim.plan.capacity import sized
from foredraft_sim.plan.influences import better
from foredraft_sim.scenario.islands import islands_of
from foredraft_sim.scenario.replications import _Part, _islands_done
from foredraft_sim.scenario.scenario import read_scenario
from foredraft_sim.workers.storage import Storage
storage = Storage(Path({str(tmp_path)!r}))
for file in (*sorted(Path("examples/scenarios").glob("*.toml")), Path({str(tmp_path / "scenario.toml")!r})):
    read = read_scenario(file)
    fleets = [sized(one, 6) for _, one in better(read)]
    print(storage.names(_islands_done, [read, *fleets])(_Part(0, "auto", 1, islands_of(read), False)))
bench = storage.names(run_one, None)
print(*(bench(trial) for suite in (*suites(True), *peers(True)) for trial in suite.trials))
"""

    def names(hash_seed: str) -> bytes:
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, check=True, capture_output=True, cwd=ROOT
        ).stdout

    first = names("1")
    assert len(first.splitlines()) > 7
    assert names("2") == first


def command(file: Path, *more: object) -> list[str]:
    policies = [word for policy in ("cloud", "sync", HELD) for word in ("--policy", policy)]
    return ["simulate", *map(str, (file, *policies, *more)), "--json"]


def test_of_a_command_that_is_killed_what_was_finished_is_kept_and_the_same_command_makes_the_rest(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, file = tmp_path / "hold", write(tmp_path)
    monkeypatch.setenv(HOLD, str(hold))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    hold.touch()
    words = command(file, "--processes", 2, "--storage", folder)
    program = [sys.executable, "-P", "-m", "foredraft", *words]  # -P: its path is ours, so packages have the same files
    with subprocess.Popen(program, stdout=subprocess.DEVNULL) as running:
        while len(kept_in(folder)) < 4:
            assert running.poll() is None, "it ended by itself"
            Event().wait(0.05)
        running.send_signal(signal.SIGKILL)
    hold.unlink()
    again = CliRunner().invoke(app, command(file, "--processes", 1, "--storage", folder))
    assert again.stderr.splitlines()[-1] == summary(folder, 4, 2)
    assert again.stdout == CliRunner().invoke(app, command(file, "--processes", 1)).stdout


def test_a_plan_that_was_kept_is_made_of_what_is_there(tmp_path: Path, folder: Path) -> None:
    file = write(tmp_path, workload(prompt_tokens=8, new_tokens=8, requests=1))
    words = ["plan", str(file), "--slo", "p95-e2e=9", "--most", "4", "--policy", "sync", "--json"]
    alone, first, second = (
        CliRunner().invoke(app, [*words, *more]) for more in ([], *[["--storage", str(folder)]] * 2)
    )
    assert first.stdout == second.stdout == alone.stdout
    assert json.loads(alone.stdout)["rows"]
    new = len(kept_in(folder))
    assert first.stderr.splitlines()[-1] == summary(folder, 0, new)
    assert re.fullmatch(rf"{folder}: \d+ result\(s\) were there, 0 are new", second.stderr.splitlines()[-1])


def test_trials_of_the_benches_are_kept_and_files_of_links_count(tmp_path: Path, folder: Path) -> None:
    line = tmp_path / "line.toml"
    line.write_text((ROOT / "hardware_profiles" / "lan.toml").read_text())
    trials = [
        Trial(Setting(Times(0.03, 8, 0.003, 0.02), new_tokens=8, outage="cut"), "seed", 1),
        Trial(Drift("a step", 0.02, 0.08, 0.6, 0.6), "auto", 1),
        Trial(Decisions("lan", 1.2, requests=2), "auto", 1),
    ]
    right = repr(run_all(trials, 1))
    for files, found in (([str(line)], 0), ([str(line)], 3), ([], 0)):
        storage = storage_for(files, folder)
        assert storage is not None
        assert repr(run_all(trials, 1, storage=storage)) == right
        assert storage.summary() == summary(folder, found, 3 - found)
    line.write_text(line.read_text() + "\n")
    changed, trial = storage_for([str(line)], folder), trials[0]
    assert changed is not None
    assert storage_for([], None) is None
    assert not (folder / changed.names(run_one, None)(trial)).exists()


def test_a_link_whose_trace_is_not_there_is_said_in_a_line(tmp_path: Path, folder: Path) -> None:
    line = tmp_path / "line.toml"
    line.write_text((ROOT / "hardware_profiles" / "lan.toml").read_text().replace("[up]", '[up]\ntrace = "up.trace"'))
    with pytest.raises(ConfigError, match=rf"--storage: {tmp_path / 'up.trace'} cannot be read"):
        storage_for([str(line)], folder)
