"""How a command is told where to run."""

from typing import Annotated

import typer

Scheduler = Annotated[
    str,
    typer.Option(
        help="Run on the workers of a Dask scheduler: tcp://HOST:PORT; or local, a cluster on this machine.",
        show_default=False,
    ),
]
