"""Tasks that are independent of each other, run in order: here, in processes, or on other machines.

What comes of a task does not depend on where it ran, or on how often its worker died.
"""

import os
import platform
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeVar

from foredraft import version
from foredraft.errors import ConfigError, ForedraftError
from foredraft.profiles.lookup import shipped_profiles
from foredraft_sim.errors import ScenarioError

if TYPE_CHECKING:
    from foredraft_sim.workers.storage import Storage

_Shared = TypeVar("_Shared")
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

AHEAD: Final = 1000
"""So many tasks wait at most, where there is no end of them."""
DEATHS: Final = 4
"""A task whose worker dies so often is not tried again."""


class Workers(ABC):
    """What runs tasks. ``count``: how many at once."""

    count: int = 1

    @abstractmethod
    def as_done(
        self, function: Callable[[_Shared, _Task], _Result], shared: _Shared, tasks: Iterable[_Task]
    ) -> "Generator[tuple[int, _Result | Failure]]":
        """``function(shared, task)`` of each task as it is done, with its number, from 0. Tasks may have no end.

        Raises WorkersError.
        """

    def map(
        self, function: Callable[[_Shared, _Task], _Result], shared: _Shared, tasks: Iterable[_Task]
    ) -> Generator[_Result]:
        """The same in the order of the tasks. Raises ScenarioError: what a task raised on purpose; WorkersError."""
        ready: dict[int, _Result | Failure] = {}
        wanted = 0
        with closing(self.as_done(function, shared, tasks)) as done:
            for number, result in done:
                ready[number] = result
                while wanted in ready:
                    yield told(ready.pop(wanted))
                    wanted += 1

    def here(self) -> "Workers":
        """This process in their place, where there is too little to do."""
        return Here()


class Here(Workers):
    """This process."""

    def as_done(
        self, function: Callable[[_Shared, _Task], _Result], shared: _Shared, tasks: Iterable[_Task]
    ) -> "Generator[tuple[int, _Result | Failure]]":
        """One after another; what a task raises is raised as it is."""
        return ((number, function(shared, task)) for number, task in enumerate(tasks))


def opened(
    processes: int | None, scheduler: str, worth: int, storage: "Storage | None" = None
) -> AbstractContextManager[Workers]:
    """The workers that a user asked for, while the context lasts. Raises ConfigError, MissingExtraError.

    ``worth``: how many processes pay, where the user says nothing. ``storage``: where what they finish is kept.
    """
    if storage is not None:
        from foredraft_sim.workers.kept import kept

        return kept(opened(processes, scheduler, worth), storage)
    if scheduler:
        from foredraft_sim.workers.dask_workers import LOCAL, on_dask

        if processes is not None and scheduler != LOCAL:
            raise ConfigError(f"--scheduler {scheduler} has its own workers: leave the number of processes out")
        return on_dask(scheduler, processes or cores())
    count = processes or worth
    if count == 1:
        return nullcontext(Here())
    from foredraft_sim.workers.processes import Processes

    return Processes(count)


def cores() -> int:
    """How many processes this machine can run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that was raised on purpose, as it travels: not every one can be pickled."""

    message: str


_alone = Lock()


def call(function: Callable[[_Shared, _Task], _Result], shared: _Shared, task: _Task) -> _Result | Failure:
    """In a worker: one task at a time, as what a simulation says is gathered for the whole process."""
    with _alone:
        try:
            return function(shared, task)
        except ForedraftError as error:
            return Failure(str(error))


def told(result: _Result | Failure) -> _Result:
    """What a worker's task came to. Raises ScenarioError."""
    if isinstance(result, Failure):
        raise ScenarioError(result.message)
    return result


@cache
def build() -> str:
    """What must be the same on both sides for results to be the same: versions, and what is really in the files."""
    ours = Path(__file__).parents[1]
    files = [file for package in (Path(version.__file__).parent, ours) for file in sorted(package.rglob("*.py"))]
    sources = sha256()
    for file in (*files, *sorted(ours.rglob("*.toml")), *shipped_profiles().values()):
        sources.update(file.read_bytes())
    python = ".".join(map(str, sys.version_info[:2]))
    where = f"Python {python} ({platform.system()} {platform.machine()})"
    return f"Foredraft {version.__version__} (sources {sources.hexdigest()[:8]}) on {where}"
