"""``foredraft bench robot``: the command."""

from collections.abc import Callable
from typing import Annotated

import typer

from foredraft.bench.result import Result
from foredraft.cli.bench import show
from foredraft.errors import UnknownNameError
from foredraft.progress import progress


def robot(
    only: Annotated[list[str] | None, typer.Option(help="success, paced or simulated; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """A robot that sees: how often it arrives, and how long its decisions take with each policy. Takes minutes."""
    from foredraft_sim.bench.robot_loop import paced, simulated, success

    known: dict[str, Callable[[], Result]] = {"success": success, "paced": paced, "simulated": simulated}
    for name in only or ():
        if name not in known:
            raise UnknownNameError("measurement", name, known)
    wanted = {name: measure for name, measure in known.items() if not only or name in only}
    results: list[Result] = []
    with progress("benchmarks", count=True) as tell:
        for name, measure in wanted.items():
            tell(len(results), len(wanted), name)
            results.append(measure())
    show(results, as_json)
