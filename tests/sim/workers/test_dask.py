"""A real Dask scheduler with two worker processes: what comes of tasks is what one process makes of them."""

import json
import re
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from foredraft.cli.main import app
from foredraft.errors import ConfigError, ForedraftError
from foredraft_sim.errors import ScenarioError
from foredraft_sim.scenario.replications import replicate_all
from foredraft_sim.workers import dask_workers
from foredraft_sim.workers.dask_workers import DaskWorkers
from foredraft_sim.workers.workers import Failure, Here, build, opened
from sim.scenario.scenario_files import scenario, workload, write
from sim.workers.clusters import scheduler, workers
from sim.workers.tasks import HOLD, MARK, added, killed_at_each_try, refused_at_two, set_status

pytest.importorskip("distributed")
pytestmark = pytest.mark.timeout(240)  # processes start slowly on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dask")


@pytest.fixture(scope="module")
def mark(folder: Path) -> Path:
    return folder / "killed"


@pytest.fixture(scope="module")
def address(folder: Path, mark: Path) -> Iterator[str]:
    with scheduler(folder) as (found, _), workers(found, folder, 2, FOREDRAFT_TEST_MARK=str(mark)):
        yield found


@pytest.fixture(scope="module")
def two(address: str) -> Iterator[DaskWorkers]:
    with opened(None, address, worth=1) as found:
        assert isinstance(found, DaskWorkers)
        yield found


def test_a_worker_that_is_killed_costs_its_task_a_retry_and_every_result_is_one_process_s(
    two: DaskWorkers, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = scenario(tmp_path, workload(prompt_tokens=8, new_tokens=24, devices=2, requests=4))
    asked = (["seed", "sim.workers.tasks:KilledOnce"], [1, 2, 3])
    told: list[int] = []
    found = replicate_all(read, *asked, workers=two, on_done=told.append)
    assert mark.exists(), "no worker was killed"
    monkeypatch.setenv(MARK, str(mark))
    assert found == replicate_all(read, *asked, workers=Here())
    assert told == [1, 2, 3, 4, 5, 6]


def test_results_come_in_the_order_of_the_tasks(two: DaskWorkers) -> None:
    assert list(two.map(added, 100, range(40))) == list(range(100, 140))


def test_what_a_task_raises_on_purpose_is_said_and_what_was_done_before_it_is_there(two: DaskWorkers) -> None:
    done = two.map(refused_at_two, None, range(9))
    assert [next(done), next(done)] == [0, 1]
    with pytest.raises(ScenarioError, match="two is too many"):
        next(done)


def test_a_task_that_kills_each_worker_is_given_up(two: DaskWorkers) -> None:
    with pytest.raises(ForedraftError, match=r"2 workers died at the same task \(out of memory\?\); give workers more"):
        list(two.map(killed_at_each_try, None, range(2)))
    assert list(two.map(added, 1, [1])) == [2]


def invoked(*arguments: object) -> Result:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return done


def test_a_simulation_says_where_to_look_and_prints_what_one_process_prints(address: str, tmp_path: Path) -> None:
    file = write(tmp_path)
    there = invoked("simulate", file, "--scheduler", address)
    assert json.loads(there.stdout) == json.loads(invoked("simulate", file, "--processes", 1).stdout)
    assert re.match(rf"Dask at {address}: \d worker\(s\), dashboard http://127.0.0.1:\d+/status\n", there.stderr)


def test_a_plan_prints_what_one_process_prints(address: str, tmp_path: Path) -> None:
    file = write(tmp_path, workload(prompt_tokens=8, new_tokens=8, requests=1))
    command = ("plan", file, "--slo", "p95-e2e=9", "--most", 2, "--policy", "sync")
    assert invoked(*command, "--scheduler", address).stdout == invoked(*command).stdout


@pytest.mark.parametrize("trials", [12, 16])
def test_a_study_prints_what_one_process_prints_whether_all_is_tried_or_some_is_chosen(
    address: str, tmp_path: Path, trials: int
) -> None:
    """There are 16 candidates; of 12 most are chosen by how others came out."""
    pytest.importorskip("optuna")
    file = write(tmp_path, workload(prompt_tokens=8, new_tokens=4))

    def tuned(folder: str, trials: int, *more: object) -> Any:
        command = ("tune", file, "--policy", "sync", "--held-out", 1, "--out", tmp_path / folder, "--trials", trials)
        said = json.loads(invoked(*command, *more).stdout)
        return {name: value for name, value in said.items() if name not in ("storage", "files")}

    there = tuned("there", trials, "--scheduler", address)
    assert there == tuned("here", trials, "--workers", 1)
    assert len(there["candidates"]) == trials


OTHER = "def build(): return 'Foredraft 0.1.0 (sources 01234567) on Python 3.9'"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"workers/workers.py": OTHER, "workers/__init__.py": ""}, r"runs Foredraft 0\.1\.0 .*, and here is Foredraft"),
        ({}, r"has no Foredraft, or an older one \(No module named 'foredraft_sim\.workers'\); install Foredraft"),
    ],
)
def test_a_worker_of_another_version_is_refused_before_anything_runs(
    address: str, tmp_path: Path, files: dict[str, str], said: str
) -> None:
    other = tmp_path / "foredraft_sim"
    (other / "workers").mkdir(parents=True)
    for name, text in ({"__init__.py": ""} | files).items():
        (other / name).write_text(text)
    if not files:
        (other / "workers").rmdir()
    with (
        workers(address, tmp_path, instead=tmp_path),
        pytest.raises(ConfigError, match=rf"--scheduler {address}: worker tcp://127\.0\.0\.1:\d+ {said}"),
        opened(None, address, worth=1),
    ):
        pass


def test_a_worker_of_another_version_that_comes_later_is_refused_by_itself() -> None:
    refused = dask_workers._run("Foredraft 0.1.0", added, 1, 1)
    assert refused == Failure(f"a worker runs {build()}, and Foredraft 0.1.0 was asked for; install the same on both")


def test_a_scheduler_without_workers_or_with_one_that_is_paused_or_that_ends_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scheduler(tmp_path) as (address, running):
        with monkeypatch.context() as quick:
            quick.setattr(dask_workers, "CONNECT_S", 1)
            with pytest.raises(ConfigError, match=f"--scheduler {address} has no workers; start some"):
                opened(None, address, worth=1).__enter__()
        with workers(address, tmp_path), opened(None, address, worth=1) as one:
            assert isinstance(one, DaskWorkers)
            one._client.run(set_status, "paused")
            with monkeypatch.context() as quick:
                quick.setattr(dask_workers, "LOOK_S", 0.5)
                with pytest.raises(ForedraftError, match=r"no worker takes tasks any more \(out of memory\?\); give"):
                    next(one.map(added, 1, range(3)))
            one._client.run(set_status, "running")
            done = one.map(added, 1, count())
            assert next(done) == 1
            running.kill()
            with pytest.raises(ForedraftError, match=f"--scheduler {address}: its connection is lost; start it again"):
                list(done)


def test_of_a_scheduler_that_is_killed_half_way_what_was_finished_is_kept_and_the_rest_is_made_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, kept, file = tmp_path / "hold", tmp_path / "kept", write(tmp_path)
    monkeypatch.setenv(HOLD, str(hold))
    hold.touch()
    policies = [word for policy in ("sim.workers.tasks:Held", "cloud", "sync") for word in ("--policy", policy)]
    command = ["simulate", str(file), *policies, "--json"]

    def kill_half_way(running: "subprocess.Popen[bytes]") -> None:
        while len(list(kept.glob("*.result"))) < 4:
            Event().wait(0.05)
        running.kill()

    with scheduler(tmp_path) as (address, running), workers(address, tmp_path, 3, FOREDRAFT_TEST_HOLD=str(hold)):
        Thread(target=kill_half_way, args=(running,), daemon=True).start()
        lost = CliRunner().invoke(app, [*command, "--scheduler", address, "--storage", str(kept)])
        hold.unlink()
    said = f"--scheduler {address}: its connection is lost; start it again, and run the same command again"
    assert lost.exit_code == 1
    assert lost.stderr.splitlines()[-1:] == [f"error: {said}; 4 result(s) are kept in {kept}"]
    again = CliRunner().invoke(app, [*command, "--storage", str(kept)])
    assert again.stderr.splitlines()[-1] == f"{kept}: 4 result(s) were there, 2 are new"
    assert again.stdout == CliRunner().invoke(app, command).stdout


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("tcp://127.0.0.1:9", "no Dask scheduler answers there"),
        ("nonsense", "no address such as tcp://HOST:8786, and not local"),
    ],
)
def test_a_scheduler_that_is_not_there_is_said_in_a_line(
    where: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_workers, "CONNECT_S", 1)
    done = CliRunner().invoke(app, ["simulate", str(write(tmp_path)), "--scheduler", where])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert f"--scheduler {where}: {said}" in done.stderr
    assert "start one with 'dask scheduler'" in done.stderr
