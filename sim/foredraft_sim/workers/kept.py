"""Workers whose results are kept in a folder: what lies there is taken, and only the rest is run."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import chain, islice
from typing import Any, Final, TypeVar, get_type_hints

import typer

from foredraft_sim.errors import WorkersError
from foredraft_sim.workers.storage import Storage
from foredraft_sim.workers.workers import Failure, Here, Workers

_Shared = TypeVar("_Shared")
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")

PARTS: Final = 64
"""How many workers are said to be there: how work is divided must not depend on who works this time."""


@contextmanager
def kept(workers: AbstractContextManager[Workers], storage: Storage) -> Iterator[Workers]:
    """The same workers, with what they finish kept; at the end a line says how much was there."""
    with workers as found:
        yield Kept(found, storage)
    typer.echo(storage.summary(), err=True)


class Kept(Workers):
    """Each result is kept as soon as it comes, whatever its turn."""

    count = PARTS

    def __init__(self, workers: Workers, storage: Storage) -> None:
        self._workers, self._storage = workers, storage

    def here(self) -> Workers:
        """What this process finishes is kept, too."""
        return Kept(Here(), self._storage)

    def as_done(
        self, function: Callable[[_Shared, _Task], _Result], shared: _Shared, tasks: Iterable[_Task]
    ) -> Generator[tuple[int, _Result | Failure]]:
        """What is there first, as far as nothing is missing; the rest among what comes. Also raises StorageError."""
        kind = get_type_hints(function)["return"]
        missing = _Missing(self._storage, self._storage.names(function, shared), kind, tasks)
        first = list(islice(missing, 1))
        yield from missing.found()
        try:
            with closing(self._workers.as_done(function, shared, chain(first, missing))) as done:
                for at, result in done:
                    number, name = missing.asked[at]
                    if not isinstance(result, Failure):
                        self._storage.write(name, result)
                    yield number, result
                    yield from missing.found()
        except WorkersError as error:
            raise WorkersError(f"{error}; {self._storage.told()}") from error
        yield from missing.found()


class _Missing(Iterator[_Task]):
    """Those tasks whose results are not there. ``asked``: of each its number, and its result's file."""

    def __init__(self, storage: Storage, name_of: Callable[[object], str], kind: Any, tasks: Iterable[_Task]) -> None:
        self._storage, self._name_of, self._kind, self._tasks = storage, name_of, kind, enumerate(tasks)
        self._found: deque[tuple[int, Any]] = deque()
        self.asked: list[tuple[int, str]] = []

    def __next__(self) -> _Task:
        for number, task in self._tasks:
            name = self._name_of(task)
            result = self._storage.read(name, self._kind)
            if result is None:
                self.asked.append((number, name))
                return task
            self._found.append((number, result))
        raise StopIteration

    def found(self) -> Iterator[tuple[int, Any]]:
        """What was there since the last time, with the numbers of the tasks."""
        while self._found:
            yield self._found.popleft()
