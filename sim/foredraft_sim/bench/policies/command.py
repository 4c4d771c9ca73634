"""``foredraft bench policies``: the command."""

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foredraft.progress import progress
from foredraft_sim.workers.option import Scheduler
from foredraft_sim.workers.workers import cores, opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from foredraft.bench.result import Figure
    from foredraft_sim.bench.policies.setting import Outcome
    from foredraft_sim.bench.policies.suite import Outcomes, Row, Trial

REAL = "real"
"""``foredraft bench real`` as a part of this: the one that is not simulated."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part's outcome. ``missed``: against what a row is worse than it should be."""

    name: str
    says: str
    rows: "list[Row]"
    figures: "list[Figure]"
    missed: "Callable[[Row], str]" = lambda row: ""

    def rows_missed(self) -> "list[Row]":
        """The rows that are worse than they should be, each with what they missed."""
        return [row | {"missed": against} for row in self.rows if (against := self.missed(row))]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        figures = [asdict(figure) | {"holds": figure.holds} for figure in self.figures]
        return {"says": self.says, "figures": figures, "rows": self.rows, "missed": self.rows_missed()}


def policies(
    only: Annotated[list[str] | None, typer.Option(help="Run this part alone; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option(help="A few cells and seeds, to see that all is well.")] = False,
    link: Annotated[
        list[str] | None, typer.Option(help="Time decisions over this link, too: a link profile; may be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="So many seeds in each part; 0: each part's own number.", min=0)] = 0,
    processes: Annotated[int, typer.Option(help="How many at a time; 0 for one per core.", min=0)] = 0,
    scheduler: Scheduler = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Every policy against streaming from the cloud, on the same tokens: in simulated time, and (real) on the clock."""
    from foredraft.errors import UnknownNameError
    from foredraft_sim.bench.policies.suites import suites

    known = {suite.name: suite for suite in suites(quick, seeds, link or ())}
    for name in only or ():
        if name not in (*known, REAL):
            raise UnknownNameError("part of the benchmark", name, [*known, REAL])
    chosen = [suite for suite in known.values() if not only or suite.name in only]
    outcomes = run_all([trial for suite in chosen for trial in suite.trials], processes, scheduler)
    parts = [Part(suite.name, suite.says, *suite.judge(outcomes), suite.missed) for suite in chosen]
    if not only or REAL in only:
        parts += _real(quick)
    show_parts(parts, as_json)


def show_parts(parts: "list[Part]", as_json: bool) -> None:
    """Print them. Exit code 1 where a bound does not hold."""
    if as_json:
        typer.echo(json.dumps({part.name: part.plain() for part in parts}))
    else:
        for part in parts:
            _show(part)
    if any(figure.holds is False for part in parts for figure in part.figures):
        raise typer.Exit(1)


def run_all(trials: "list[Trial]", processes: int = 0, scheduler: str = "") -> "Outcomes":
    """What each of the trials comes to, in several processes, with a bar of progress on a terminal."""
    every = list(dict.fromkeys(trials))
    outcomes = {}
    with opened(processes or None, scheduler, cores()) as workers, progress("sessions", count=True) as show:
        for trial, outcome in zip(every, workers.map(_run_one, None, every), strict=True):
            outcomes[trial] = outcome
            show(len(outcomes), len(every), "")
    return outcomes


def _run_one(shared: None, trial: "Trial") -> "Outcome":
    return run_one(trial)


def run_one(trial: "Trial") -> "Outcome":
    """One trial, in whatever process."""
    from foredraft_sim.bench.policies.decisions import Decisions, try_decisions
    from foredraft_sim.bench.policies.drift import Drift, try_drift
    from foredraft_sim.bench.policies.setting import try_policy

    if isinstance(trial.where, Drift):
        return try_drift(trial.where, trial.policy, trial.seed)
    if isinstance(trial.where, Decisions):
        return try_decisions(trial.where, trial.policy, trial.seed)
    return try_policy(trial.where, trial.policy, trial.seed)


def _real(quick: bool) -> "list[Part]":
    """The part on the wall clock, after all others, so that nothing else is at work."""
    from foredraft.bench.real import measure

    results = measure(1, 32) if quick else measure()
    return [Part(result.name, result.method, [], list(result.figures)) for result in results]


def _show(part: Part) -> None:
    """For people. Of a long table only the rows that missed; all are in --json."""
    typer.echo(f"{part.name}: {part.says}")
    missed = part.rows_missed()
    if len(part.rows) <= MOST_ROWS:
        _show_table(part.rows)
    else:
        typer.echo(f"  {len(part.rows)} rows: see --json; {len(missed)} missed" + ":" * bool(missed))
        _show_table(missed)
    for figure in part.figures:
        typer.echo(f"  {figure}")


def _show_table(rows: "list[Row]") -> None:
    if not rows:
        return
    cells = [[_said(value) for value in row.values()] for row in rows]
    heads = list(rows[0])
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for line in (heads, *cells):
        typer.echo("  " + "  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)))


MOST_ROWS = 80


def _said(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
