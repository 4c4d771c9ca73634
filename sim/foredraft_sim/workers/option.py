"""How a command is told where to run, and where what it finishes is kept."""

from pathlib import Path
from typing import Annotated

import typer

Scheduler = Annotated[
    str,
    typer.Option(
        help="Run on the workers of a Dask scheduler: tcp://HOST:PORT; or local, a cluster on this machine.",
        show_default=False,
    ),
]
StorageFolder = Annotated[
    Path | None,
    typer.Option(
        "--storage",
        help="Keep what is finished in this folder; the same command goes on with it.",
        show_default=False,
    ),
]
