"""``foredraft bench simulator``: the command."""

from collections.abc import Callable, Collection, Mapping
from typing import Annotated

import typer

from foredraft.bench.result import Result
from foredraft.cli.bench import show
from foredraft.errors import UnknownNameError
from foredraft.progress import progress


def simulator(
    only: Annotated[list[str] | None, typer.Option(help="loop-speed, fleet or wall-clock; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of the fleet.", min=1000)] = 200_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """What simulating costs, and how well it meets the wall clock. The whole takes some minutes."""
    from foredraft_sim.bench import sessions as sessions_bench

    known: dict[str, Callable[[], Result]] = {
        "loop-speed": sessions_bench.loop_speed,
        "wall-clock": sessions_bench.wall_clock,
        "fleet": lambda: sessions_bench.fleet(rounds),
    }
    measure_all(known, only or (), as_json)


def measure_all(known: Mapping[str, Callable[[], Result]], only: Collection[str], as_json: bool) -> None:
    """Make these measurements, or ``only`` some, and show them. Raises UnknownNameError."""
    for name in only:
        if name not in known:
            raise UnknownNameError("measurement", name, known)
    wanted = {name: measure for name, measure in known.items() if not only or name in only}
    results: list[Result] = []
    with progress("benchmarks", count=True) as tell:
        for name, measure in wanted.items():
            tell(len(results), len(wanted), name)
            results.append(measure())
    show(results, as_json)
