"""Studies outlive their processes: killed workers lose no finished trial, and several share one storage."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from foredraft.errors import ConfigError
from foredraft_sim.tune.storage import CANDIDATE, Place, begin, candidates, joined, lost, opened
from foredraft_sim.tune.work import Job, run
from sim.tune.tuning import place, search, study

pytestmark = pytest.mark.timeout(240)  # processes start slowly on a busy machine

HANGS = """
import sys, threading
from pathlib import Path
from foredraft_sim.tune.search import Search
from foredraft_sim.tune.work import Job, work
from sim.tune.tuning import place, search

folder = Path(sys.argv[1])
calls = []

class Hanging(Search):
    __slots__ = ()

    def measure(self, policy):
        calls.append(policy)
        if len(calls) == 4:
            (folder / "is attached").write_text(policy)
            threading.Event().wait()
        return super().measure(policy)

plain = search(folder)
asked = Hanging(plain.scenario, plain.policies, plain.objectives, plain.limits, plain.seeds)
work(Job(asked, place(folder), 8), lambda done: None)
"""


def states(where: Place) -> list[tuple[str, dict[str, Any]]]:
    with opened(where) as storage:
        return [(trial.state.name, trial.params) for trial in joined(storage, where).get_trials(deepcopy=False)]


@contextmanager
def worker(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker that tries three candidates, and is in the middle of the fourth for ever."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", HANGS, str(folder)], env=environment)
    try:
        while not (folder / "is attached").exists():
            assert process.poll() is None, "the worker ended by itself"
            threading.Event().wait(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_killed_worker_loses_no_finished_trial_and_its_running_one_is_tried_again(tmp_path: Path) -> None:
    asked, where = search(tmp_path), place(tmp_path)
    with opened(where) as storage:
        begin(storage, where, asked, 8)
    with worker(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = states(where)
    assert [state for state, _ in before].count("COMPLETE") == 3
    (running,) = [params for state, params in before if state == "RUNNING"]
    with opened(where) as storage:
        kept = candidates(joined(storage, where).get_trials(deepcopy=False))
    found = study(asked, where, 8)
    assert found[:3] == kept
    assert len(found) == 8
    after = states(where)
    assert ("FAIL", running) in after
    assert ("COMPLETE", running) in after
    assert "RUNNING" not in [state for state, _ in after]
    with opened(where) as storage:
        assert lost(joined(storage, where).get_trials(deepcopy=False)) == 1


def test_two_workers_share_one_storage_and_both_try_candidates(tmp_path: Path) -> None:
    asked, where = search(tmp_path), place(tmp_path)
    with opened(where) as storage:
        begin(storage, where, asked, 30)
    told: list[int] = []
    run(Job(asked, where, 30), 2, lambda done: told.append(len(done)))
    with opened(where) as storage:
        trials = joined(storage, where).get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    assert 30 <= len(trials) <= 31
    assert told == sorted(told)
    assert len({trial.user_attrs[CANDIDATE]["by"] for trial in trials}) == 2
    metrics: dict[str, Any] = {}
    for trial in trials:
        said = trial.user_attrs[CANDIDATE]
        assert metrics.setdefault(said["policy"], said["metrics"]) == said["metrics"]


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    asked, where = search(tmp_path), place(tmp_path)
    with opened(where) as storage:
        begin(storage, where, asked, 20)
    killed: list[int | None] = []

    def kill_one(done: Any) -> None:
        if done and not killed:
            victim = multiprocessing.active_children()[-1]
            killed.append(victim.pid)
            victim.kill()

    run(Job(asked, where, 20), 2, kill_one)
    assert killed
    with opened(where) as storage:
        assert len(candidates(joined(storage, where).get_trials(deepcopy=False))) >= 20


def test_a_study_goes_on_to_more_trials_where_it_ended(tmp_path: Path) -> None:
    asked, where = search(tmp_path), place(tmp_path)
    first = study(asked, where, 5)
    assert study(asked, where, 5) == first
    assert study(asked, where, 9)[:5] == first


def test_an_interrupted_candidate_is_put_in_line_again(tmp_path: Path) -> None:
    asked, where = search(tmp_path), place(tmp_path)

    class Interrupted(type(asked)):  # type: ignore[misc]
        __slots__ = ()

        def measure(self, policy: str) -> dict[str, float]:
            raise KeyboardInterrupt

    once = Interrupted(asked.scenario, asked.policies, asked.objectives, asked.limits, asked.seeds)
    with pytest.raises(KeyboardInterrupt):
        study(once, where, 3)
    assert study(asked, where, 3)[0].policy == "seed:gamma=4,threshold=0.5"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"seeds": (1, 2)}, r"was for seeds \[1\], not \[1, 2\]"),
        ({"limits": {"cost": 1.0}}, r"was for limits \{\}, not"),
        ({"policies": ("seed:gamma=2",)}, r"was for policies \['seed'\]"),
    ],
)
def test_a_study_is_not_gone_on_with_when_something_else_is_asked(
    tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    study(search(tmp_path), place(tmp_path), 1)
    with pytest.raises(ConfigError, match=said):
        study(search(tmp_path, **other), place(tmp_path), 1)
