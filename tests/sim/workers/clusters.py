"""A Dask scheduler and its workers, as processes of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

DASK = (sys.executable, "-m", "dask")
HERE = ("--host", "127.0.0.1")
CONFIG = {
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
    "DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "0",
}


Process = subprocess.Popen[bytes]


@contextmanager
def process(*arguments: str, instead: Path | None = None, **more: str) -> Iterator[Process]:
    """``dask ...``; what is in the folder ``instead`` is imported in the place of ours."""
    paths = os.pathsep.join([*([str(instead)] if instead else []), *filter(None, sys.path)])
    environment = os.environ | CONFIG | {"PYTHONPATH": paths} | more
    command = [*DASK, *arguments, *HERE]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            yield running
        finally:
            running.terminate()


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[str, Process]]:
    """Its address and its process."""
    file = folder / "scheduler.json"
    port = ("--port", "0", "--dashboard-address", "127.0.0.1:0")
    with process("scheduler", *port, "--scheduler-file", str(file)) as running:
        while not (file.exists() and file.read_text().endswith("}")):
            assert running.poll() is None, "the scheduler ended by itself"
            Event().wait(0.05)
        yield json.loads(file.read_text())["address"], running


@contextmanager
def workers(address: str, folder: Path, count: int = 1, instead: Path | None = None, **more: str) -> Iterator[None]:
    """So many more workers of one thread; a nanny starts them again where there are several."""
    from distributed import Client

    many = ("--nworkers", str(count)) if count > 1 else ("--no-nanny",)
    usual = ("--nthreads", "1", "--memory-limit", "0", "--local-directory", str(folder), "--no-dashboard")

    def here(client: Client) -> int:
        names = (str(one["name"]) for one in client.scheduler_info()["workers"].values())
        return sum(name.startswith(folder.name) for name in names)

    with process("worker", address, *usual, *many, "--name", folder.name, instead=instead, **more) as running:
        with Client(address, set_as_default=False) as client:
            while here(client) < count:
                assert running.poll() is None, "the workers ended by themselves"
                Event().wait(0.05)
        yield
