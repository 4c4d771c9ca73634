"""The thread on which an engine's device work runs, one job after another, first come first served."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from foredraft.engines.worker_thread import WorkerThread
from foredraft.errors import RefusedError
from foredraft.protocol.messages import INTERNAL

_Result = TypeVar("_Result")


class EngineWorker:
    """One thread per device. The event loop stays free while a job runs.

    Every session has at most one job waiting, so first come first served is also fair. A job that
    was cancelled before it began never runs; one that has begun ends in its own time.
    """

    def __init__(self, name: str) -> None:
        self._executor = WorkerThread(name)
        self._closed = False

    async def run(self, job: Callable[[], _Result]) -> _Result:
        """Run ``job`` on the thread. Raises what it raises, and RefusedError once the worker is closed."""
        if self._closed:
            raise RefusedError(INTERNAL, "the engine is closed")
        return await asyncio.get_running_loop().run_in_executor(self._executor, self.guard, job)

    def guard(self, job: Callable[[], Any]) -> Any:
        """Run a job as the engine's library wants it, its errors translated."""
        return job()

    async def close(self) -> None:
        """Let the job in progress end, then the thread. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._executor, int)  # the last one in the line
            self._executor.shutdown()
