"""``foredraft bench policies``: the command."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foredraft.progress import progress
from foredraft_sim.workers.option import Scheduler, StorageFolder
from foredraft_sim.workers.workers import cores, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from foredraft.bench.result import Figure
    from foredraft_sim.bench.policies.suite import Outcomes, Row, Trial
    from foredraft_sim.workers.storage import Storage

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
    storage: StorageFolder = None,
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
    kept = storage_for(link or (), storage)
    outcomes = run_all([trial for suite in chosen for trial in suite.trials], processes, scheduler, kept)
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


def storage_for(links: "Sequence[str]", folder: Path | None) -> "Storage | None":
    """Where outcomes over these links are kept, if a user named a folder. Raises ConfigError, ProfileError."""
    from foredraft_sim.bench.policies.setting import files_of_link
    from foredraft_sim.workers.storage import Storage

    return None if folder is None else Storage(folder, [file for link in links for file in files_of_link(link)])


def run_all(
    trials: "list[Trial]", processes: int = 0, scheduler: str = "", storage: "Storage | None" = None
) -> "Outcomes":
    """What each of the trials comes to, in several processes, with a bar of progress on a terminal."""
    from foredraft_sim.bench.policies.suite import run_one

    every = list(dict.fromkeys(trials))
    outcomes = {}
    with opened(processes or None, scheduler, cores(), storage) as workers, progress("sessions", count=True) as show:
        for trial, outcome in zip(every, workers.map(run_one, None, every), strict=True):
            outcomes[trial] = outcome
            show(len(outcomes), len(every), "")
    return outcomes


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
