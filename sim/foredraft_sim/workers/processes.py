"""Processes of this machine. One that dies costs the tasks that were running a second try."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from threading import Thread
from types import TracebackType
from typing import Any, TypeVar

from foredraft.errors import ForedraftError
from foredraft_sim.workers.workers import AHEAD, DEATHS, Workers, call, told

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

    def map(
        self, function: Callable[[_Shared, _Task], _Result], shared: _Shared, tasks: Iterable[_Task]
    ) -> Generator[_Result]:
        """As processes become free."""
        run: Callable[[_Task], Any] = partial(call, function, shared)
        left, deaths = iter(tasks), 0
        running: deque[tuple[_Task, Future[Any]]] = deque()
        try:
            while True:
                running.extend((task, self._submit(run, task)) for task in islice(left, AHEAD - len(running)))
                if not running:
                    return
                try:
                    result = running[0][1].result()
                except BrokenProcessPool:
                    deaths += 1
                    if deaths == DEATHS:
                        raise ForedraftError(_DIED) from None
                    self._pool.shutdown(wait=True)
                    self._pool = self._new_pool()
                    again = [(task, one if _is_done(one) else self._submit(run, task)) for task, one in running]
                    running = deque(again)
                else:
                    running.popleft()
                    deaths = 0
                    yield told(result)
        finally:
            for _, future in running:
                future.cancel()

    def _submit(self, run: Callable[[_Task], Any], task: _Task) -> "Future[Any]":
        try:
            return self._pool.submit(run, task)
        except BrokenProcessPool as error:  # it broke while nobody was waiting
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed


def _is_done(future: "Future[Any]") -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


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
