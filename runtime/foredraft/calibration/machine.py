"""What this machine is, in words, for the profiles that are measured on it."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from foredraft.api.loading import ModelOptions
from foredraft.profiles.schema import Machine

_PACKAGES: Final = ("foredraft", "torch", "transformers", "llama-cpp-python", "uvloop")


def this_machine(options: ModelOptions, said: str = "") -> Machine:
    """The machine that runs this. ``said``: what its owner calls it, in the place of what the system says."""
    threads = f"{options.threads} threads" if options.threads else "the default number of threads"
    if options.threads == 1:
        threads = "1 thread"
    return Machine(
        device=said or _device(options.device),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        software=", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name))),
        settings=f"{options.dtype}, {options.device}, {threads}",
        measured=str(datetime.now(UTC).date()),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _device(name: str) -> str:
    if name.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(name))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{cores} core{'s' if cores > 1 else ''} of {_processor()}"


def _processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(named, "") or platform.machine()
