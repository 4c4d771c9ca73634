"""The thread on which an engine's device work runs, one job after another, first come first served."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import torch

from foredraft.core.messages import BUSY, INTERNAL
from foredraft.engines.worker_thread import WorkerThread
from foredraft.errors import ModelError, RefusedError

RETRY_AFTER_S = 1.0
"""When to try again what found no memory on the device."""

_Result = TypeVar("_Result")


class DeviceWorker:
    """One thread per device. The event loop stays free while a job runs.

    Every session has at most one job waiting, so first come first served is also fair. A job that
    was cancelled before it began never runs; one that has begun ends in its own time.
    """

    def __init__(self, name: str) -> None:
        self._executor = WorkerThread(name)
        self._closed = False

    async def run(self, job: Callable[[], _Result]) -> _Result:
        """Run ``job`` on the thread, without gradients.

        Raises ModelError where torch fails, RefusedError("busy") where it finds no memory.
        """
        if self._closed:
            raise RefusedError(INTERNAL, "the engine is closed")
        return await asyncio.get_running_loop().run_in_executor(self._executor, _without_gradients, job)

    async def close(self) -> None:
        """Let the job in progress end, then the thread. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._executor, int)  # the last one in the line
            self._executor.shutdown()


def _without_gradients(job: Callable[[], _Result]) -> _Result:
    try:
        with torch.inference_mode():
            return job()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise RefusedError(BUSY, f"no memory is left on the device: {first_line(error)}", RETRY_AFTER_S) from error
    except (RuntimeError, IndexError) as error:
        if "allocate memory" in str(error):  # what torch says where there is no accelerator
            raise RefusedError(BUSY, f"no memory is left: {first_line(error)}", RETRY_AFTER_S) from error
        raise ModelError(f"the model failed on its device: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
