"""The workers of a Dask scheduler, which gives the tasks of a worker that dies to another.

What Dask raises is translated here.
"""

import logging
import re
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

import typer

from foredraft.errors import ConfigError, needs
from foredraft.quieted import quieted
from foredraft_sim.errors import WorkersError
from foredraft_sim.workers.workers import AHEAD, Failure, Workers, build, call

if TYPE_CHECKING:
    from distributed import Client, Future

_Shared = TypeVar("_Shared")
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

LOCAL: Final = "local"
CONNECT_S: Final = 10
"""For the scheduler to answer, and again for a first worker of it."""
LOOK_S: Final = 5
IDLE_LOOKS: Final = 6
"""So many looks in a row that find no worker which takes tasks are enough."""
_ASK: Final = "__import__('foredraft_sim.workers.workers', fromlist=['build']).build()"
"""As text: a worker without Foredraft, or of another Python, can say so."""


@contextmanager
def on_dask(scheduler: str, processes: int) -> Iterator[Workers]:
    """The workers of a scheduler, by its address or of its own on this machine. Raises ConfigError, MissingExtraError.

    ``processes``: of the one on this machine.
    """
    needs("distributed")
    from distributed import LocalCluster

    # What Dask logs of connections that break is in our errors; the second has a level of its own.
    with quieted(logging.CRITICAL + 1, "distributed", "distributed.client"):
        if scheduler != LOCAL:
            with _connected(scheduler) as workers:
                yield workers
            return
        with (
            LocalCluster(
                processes, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
            ) as ours,
            _connected(ours.scheduler_address) as workers,
        ):
            yield workers


@contextmanager
def _connected(scheduler: str) -> "Iterator[DaskWorkers]":
    client = _client(scheduler)
    try:
        workers = DaskWorkers(client, scheduler)
        typer.echo(workers.title(), err=True)
        yield workers
    finally:
        client.close()


def _client(scheduler: str) -> "Client":
    from distributed import Client

    way = "start one with 'dask scheduler', and write the address that it says"
    if not re.fullmatch(r"\w+://.+:\d+", scheduler):
        raise ConfigError(f"--scheduler {scheduler}: no address such as tcp://HOST:8786, and not {LOCAL}; {way}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions: we look at what matters, and say it in a line
            return Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except Exception as error:  # of many kinds: no such host, nobody there, somebody who does not speak Dask
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"--scheduler {scheduler}: no Dask scheduler answers there ({reason}); {way}") from error


class DaskWorkers(Workers):
    """All that the scheduler has. Each runs one task at a time, so that processes count, and not threads.

    Raises ConfigError: there are none, or their Foredraft is not ours.
    """

    def __init__(self, client: "Client", scheduler: str) -> None:
        self._client, self._scheduler = client, scheduler
        try:
            client.wait_for_workers(1, timeout=CONNECT_S)
        except TimeoutError as error:
            way = f"start some, one for each core: dask worker --nworkers auto --nthreads 1 {scheduler}"
            raise ConfigError(f"--scheduler {scheduler} has no workers; {way}") from error
        said = client.run(eval, _ASK, on_error="return")
        self.count = max(1, len(said))
        for address, one in said.items():
            if one != build() and not isinstance(one, OSError):  # which has just gone
                raise ConfigError(f"--scheduler {scheduler}: worker {address} {_other(one)}")

    def title(self) -> str:
        """Where it runs, and where that can be looked at."""
        try:
            dashboard = f"dashboard {self._client.dashboard_link}"
        except KeyError:  # a scheduler may be started without
            dashboard = "no dashboard"
        return f"Dask at {self._scheduler}: {self.count} worker(s), {dashboard}"

    def as_done(
        self, function: Callable[[_Shared, _Task], _Result], shared: _Shared, tasks: Iterable[_Task]
    ) -> Generator[tuple[int, _Result | Failure]]:
        """As workers become free; those that come later work, too. What is done is fetched at once."""
        name, left = f"{function.__name__.strip('_')}-{uuid4().hex}", enumerate(tasks)
        kept = self._client.submit(_same, shared, key=f"shared-{uuid4().hex}")  # made again where its worker dies
        running: dict[int, Future[Any]] = {}
        while True:
            for number, task in islice(left, AHEAD - len(running)):
                running[number] = self._client.submit(_run, build(), function, kept, task, key=(name, number))
            if not running:
                return
            yield from self._fetched(running).items()

    def _fetched(self, running: "dict[int, Future[Any]]") -> dict[int, Any]:
        """All that is done, when anything is, and only then what failed; it is running no longer."""
        from distributed import KilledWorker, wait

        idle = 0
        while True:
            try:
                with self._client.as_current():
                    wait(list(running.values()), LOOK_S, "FIRST_COMPLETED")
                done = {number: future for number, future in running.items() if future.done()}
                done = {number: future for number, future in done.items() if future.status == "finished"} or done
                found = self._client.gather(list(done.values()))
            except TimeoutError:
                idle = 0 if self._takes_tasks() else idle + 1
                if idle == IDLE_LOOKS:
                    raise self._failed("no worker takes tasks any more (out of memory?)", _MORE) from None
            except KilledWorker as error:
                died = f"{error.allowed_failures + 1} workers died at the same task (out of memory?)"
                raise self._failed(died, _MORE) from error
            except CancelledError as error:
                raise self._failed("its connection is lost", "start it again") from error
            except ModuleNotFoundError as error:
                raise self._failed(f"a worker has no module {error.name!r}", "install it there") from error
            else:
                for number in done:
                    del running[number]
                return dict(zip(done, found, strict=True))

    def _takes_tasks(self) -> bool:
        try:
            workers = self._client.scheduler_info()["workers"].values()
        except OSError:  # the scheduler is busy, or hangs
            return False
        return any(one["status"] == "running" for one in workers)

    def _failed(self, what: str, way: str) -> WorkersError:
        return WorkersError(f"--scheduler {self._scheduler}: {what}; {way}, and run the same command again")


_MORE: Final = "give workers more memory (dask worker --memory-limit)"


def _other(said: object) -> str:
    """What is wrong with a worker that says this of itself."""
    if isinstance(said, ModuleNotFoundError):
        return f"has no Foredraft, or an older one ({said}); install {build()} there"
    return f"runs {said}, and here is {build()}; install the same on both"


def _same(shared: _Shared) -> _Shared:
    return shared


def _run(
    expected: str, function: Callable[[_Shared, _Task], _Result], shared: _Shared, task: _Task
) -> _Result | Failure:
    """In a worker, which may have come since all were asked what they run."""
    if build() != expected:
        return Failure(f"a worker runs {build()}, and {expected} was asked for; install the same on both")
    return call(function, shared, task)
