"""What the tests give workers to do."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step
from foredraft.errors import ConfigError
from foredraft.policies.sync import SyncPolicy

MARK = "FOREDRAFT_TEST_MARK"
"""In the environment: a file that says that a process was killed."""
HOLD = "FOREDRAFT_TEST_HOLD"
"""In the environment: a file; as long as it is there, those that are held go no further."""


def once(mark: Path) -> None:
    """Kill this process as ``kill -9`` does, unless that was done before."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def added(shared: int, task: int) -> int:
    return shared + task


def noted(log: Path, task: int) -> float:
    """Writes down that it ran."""
    with log.open("a") as file:
        file.write(f"{task}\n")
    return task / 3


def refused_at_two_but_noted(log: Path, task: int) -> float:
    return noted(log, refused_at_two(None, task))


def last_first(log: Path, task: int) -> int:
    """The first task waits until the last one, the third, is done."""
    while task == 0 and not log.exists():
        Event().wait(0.01)
    if task == 2:
        log.touch()
    return task


def killed_once_at_two(mark: Path, task: int) -> int:
    if task == 2:
        once(mark)
    return 10 * task


def killed_at_each_try(shared: None, task: int) -> int:
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def refused_at_two(shared: None, task: int) -> int:
    if task == 2:
        raise ConfigError("two is too many")
    return task


def whose(shared: None, task: int) -> int:
    return os.getpid()


def set_status(name: str, dask_worker: Any) -> None:
    """Dask pauses a worker whose memory is nearly full."""
    from distributed.core import Status

    dask_worker.status = Status[name]


@dataclass(frozen=True, slots=True)
class KilledOnce(SyncPolicy):
    """In the middle of a text its process is killed, once."""

    name: str = "killed-once"

    def step(self, state: EdgeState) -> Step | None:
        if state.position > 16:
            once(Path(os.environ[MARK]))
        return SyncPolicy.step(self, state)


@dataclass(frozen=True, slots=True)
class Held(SyncPolicy):
    """In the middle of a text it waits in its process until the file is gone."""

    name: str = "held"

    def step(self, state: EdgeState) -> Step | None:
        while state.position > 16 and Path(os.environ[HOLD]).exists():
            Event().wait(0.01)
        return SyncPolicy.step(self, state)
