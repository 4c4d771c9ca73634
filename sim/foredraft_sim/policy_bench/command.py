"""``foredraft bench policies``: the command."""

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from foredraft.bench.result import Figure
    from foredraft_sim.policy_bench.setting import Outcome
    from foredraft_sim.policy_bench.suites import Outcomes, Row, Suite, Trial


def policies(
    only: Annotated[list[str] | None, typer.Option(help="Run this part alone; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option(help="A few cells and seeds, to see that all is well.")] = False,
    processes: Annotated[int, typer.Option(help="How many at a time; 0 for one per core.", min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Every policy against streaming from the cloud, on the same tokens, in simulated time."""
    from foredraft.errors import UnknownNameError
    from foredraft_sim.policy_bench.suites import suites

    known = {suite.name: suite for suite in suites(quick)}
    for name in only or ():
        if name not in known:
            raise UnknownNameError("part of the benchmark", name, known)
    chosen = [suite for suite in known.values() if not only or suite.name in only]
    outcomes = run_all([trial for suite in chosen for trial in suite.trials], processes)
    failed = False
    said = {}
    for suite in chosen:
        rows, figures = suite.judge(outcomes)
        failed = failed or any(figure.holds is False for figure in figures)
        if as_json:
            held = [asdict(figure) | {"holds": figure.holds} for figure in figures]
            said[suite.name] = {"says": suite.says, "figures": held, "rows": rows}
        else:
            _show(suite, rows, figures)
    if as_json:
        typer.echo(json.dumps(said))
    if failed:
        raise typer.Exit(1)


def run_all(trials: "list[Trial]", processes: int = 0) -> "Outcomes":
    """What each of the trials comes to, in several processes, with a bar of progress on a terminal."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from rich.console import Console
    from rich.progress import Progress

    every = list(dict.fromkeys(trials))
    workers = processes or len(os.sched_getaffinity(0))
    outcomes = {}
    console = Console(stderr=True)
    with (
        Progress(console=console, disable=not console.is_terminal) as progress,
        ProcessPoolExecutor(workers, get_context("spawn")) as pool,
    ):
        bar = progress.add_task(f"{len(every)} sessions", total=len(every))
        for trial, outcome in zip(every, pool.map(run_one, every, chunksize=4), strict=True):
            outcomes[trial] = outcome
            progress.advance(bar)
    return outcomes


def run_one(trial: "Trial") -> "Outcome":
    """One trial, in whatever process."""
    from foredraft_sim.policy_bench.drift import Drift, try_drift
    from foredraft_sim.policy_bench.setting import try_policy

    if isinstance(trial.where, Drift):
        return try_drift(trial.where, trial.policy, trial.seed)
    return try_policy(trial.where, trial.policy, trial.seed)


def _show(suite: "Suite", rows: "list[Row]", figures: "list[Figure]") -> None:
    """A table, for people; long ones are left to --json."""
    typer.echo(f"{suite.name}: {suite.says}")
    if len(rows) <= MOST_ROWS:
        cells = [[_said(value) for value in row.values()] for row in rows]
        heads = list(rows[0])
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        for line in (heads, *cells):
            typer.echo("  " + "  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)))
    else:
        typer.echo(f"  {len(rows)} rows: see --json")
    for figure in figures:
        typer.echo(f"  {figure}")


MOST_ROWS = 80


def _said(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
