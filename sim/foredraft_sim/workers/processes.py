"""Processes of this machine. One that dies costs the tasks that were running a second try."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, TypeVar

from foredraft_sim.errors import WorkersError
from foredraft_sim.workers.workers import AHEAD, DEATHS, Failure, Workers, call

_Shared = TypeVar("_Shared")
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class Processes(Workers):
    """So many of them, started as there are tasks, for as long as the context lasts."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.count, multiprocessing.get_context("spawn"), _begin)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def as_done(
        self, function: Callable[[_Shared, _Task], _Result], shared: _Shared, tasks: Iterable[_Task]
    ) -> Generator[tuple[int, _Result | Failure]]:
        """As processes become free."""
        running = _Running(partial(call, function, shared))
        left = enumerate(tasks)
        try:
            while True:
                for number, task in islice(left, AHEAD - len(running.tasks)):
                    running.submit(self._pool, number, task)
                if not running.tasks:
                    return
                try:
                    yield running.next_done()
                except BrokenProcessPool:
                    if running.deaths() == DEATHS:
                        raise WorkersError(_DIED) from None
                    self._pool.shutdown(wait=True)
                    self._pool = self._new_pool()
                    running.submit_again(self._pool)
        finally:
            running.cancel()


class _Running:
    """What a pool was given to do, by its number."""

    def __init__(self, run: Callable[[Any], Any]) -> None:
        self._run = run
        self.tasks: dict[int, tuple[Any, Future[Any]]] = {}
        self._done: SimpleQueue[tuple[int, Future[Any]]] = SimpleQueue()
        self._oldest, self._deaths = -1, 0

    def submit(self, pool: ProcessPoolExecutor, number: int, task: Any) -> None:
        """One more task, or one of them again."""
        future: Future[Any] = Future()
        try:
            future = pool.submit(self._run, task)
        except BrokenProcessPool as error:  # it broke while nobody was waiting
            future.set_exception(error)
        self.tasks[number] = task, future
        future.add_done_callback(lambda ended: self._done.put((number, ended)))

    def next_done(self) -> tuple[int, Any]:
        """What is done next, in the order in which it was done. Raises BrokenProcessPool."""
        while True:
            number, future = self._done.get()
            if self.tasks[number][1] is future:  # and not one of a pool that broke
                result = future.result()
                del self.tasks[number]
                return number, result

    def deaths(self) -> int:
        """How often a process died, this time included, since the oldest task became the oldest."""
        oldest = min(self.tasks)
        self._deaths = self._deaths + 1 if oldest == self._oldest else 1
        self._oldest = oldest
        return self._deaths

    def submit_again(self, pool: ProcessPoolExecutor) -> None:
        """All tasks that were not done when their pool broke."""
        for number, (task, future) in list(self.tasks.items()):
            if future.cancelled() or future.exception() is not None:
                self.submit(pool, number, task)

    def cancel(self) -> None:
        """What nobody wants any more."""
        for _, future in self.tasks.values():
            future.cancel()


_DIED = f"processes died {DEATHS} times at the same tasks (out of memory?); go on with fewer, or simulate less at once"


def _begin() -> None:
    """An interrupt is for the process that was asked; it ends the others, and they end with it if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
