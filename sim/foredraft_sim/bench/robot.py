"""``foredraft bench robot``: the command."""

from typing import Annotated

import typer

from foredraft_sim.bench.command import measure_all


def robot(
    only: Annotated[list[str] | None, typer.Option(help="success, paced or simulated; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """A robot that sees: how often it arrives, and how long its decisions take with each policy. Takes minutes."""
    from foredraft_sim.bench.robot_loop import paced, simulated, success

    measure_all({"success": success, "paced": paced, "simulated": simulated}, only or (), as_json)
