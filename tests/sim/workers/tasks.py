"""What the tests give workers to do."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step
from foredraft.errors import ConfigError
from foredraft.policies.sync import SyncPolicy

MARK = "FOREDRAFT_TEST_MARK"
"""In the environment: a file that says that a process was killed."""


def once(mark: Path) -> None:
    """Kill this process as ``kill -9`` does, unless that was done before."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def added(shared: int, task: int) -> int:
    return shared + task


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
