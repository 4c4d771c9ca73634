"""A thread for an event loop's jobs, with the shortest way there and back.

concurrent.futures' pools serve waiting threads as well: each job has a future with a lock and a condition
beside the loop's own, which makes a visit cost two to three times as much as it has to.
"""

import asyncio
import contextlib
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any

_Job = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]
_Jobs = queue.SimpleQueue[_Job | None]

_EXIT_S = 5.0


class WorkerThread(Executor):
    """One thread: jobs run one after another, first come first served. For ``loop.run_in_executor`` alone.

    A job that is cancelled before it begins never runs; one that has begun ends in its own time.
    """

    def __init__(self, name: str) -> None:
        self._jobs: _Jobs = queue.SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True)
        self._started = False
        self._end = weakref.finalize(self, _stop, self._jobs, self._thread)  # also when the interpreter exits

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Put a job in the line: the running loop's own future, which ``run_in_executor`` takes as it is.

        Raises RuntimeError after ``shutdown``, as executors do.
        """
        if not self._end.alive:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if not self._started:
            self._started = True
            self._thread.start()
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._jobs.put((loop, future, partial(fn, *args, **kwargs) if args or kwargs else fn))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the jobs in the line end, then the thread. Twice is fine."""
        self._end()


def _stop(jobs: _Jobs, thread: threading.Thread) -> None:
    jobs.put(None)
    if thread.ident is not None and thread is not threading.current_thread():
        thread.join(_EXIT_S)


def _work(jobs: _Jobs) -> None:
    while (job := jobs.get()) is not None:
        _run(*job)
        del job  # or what it holds would live until the next one comes


def _run(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Any]", job: Callable[[], Any]) -> None:
    if future.cancelled():
        return
    try:
        settle = partial(_settle, future, job(), None)
    except BaseException as error:
        settle = partial(_settle, future, None, error)
    with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
        loop.call_soon_threadsafe(settle)


def _settle(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
