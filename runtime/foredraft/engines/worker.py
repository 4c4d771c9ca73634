"""The thread of a torch device: jobs without gradients, torch's errors as ours."""

from collections.abc import Callable
from typing import Any

import torch

from foredraft.engines.engine_worker import EngineWorker
from foredraft.errors import ModelError, RefusedError
from foredraft.protocol.messages import BUSY

RETRY_AFTER_S = 1.0
"""When to try again what found no memory on the device."""


class DeviceWorker(EngineWorker):
    """One thread per device. ``run`` raises ModelError where torch fails, RefusedError("busy") without memory."""

    def guard(self, job: Callable[[], Any]) -> Any:
        """Run a job without gradients."""
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
