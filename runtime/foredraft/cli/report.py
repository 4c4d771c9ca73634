"""``foredraft report``: one page that compares sessions and policies."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Records, and what generate, simulate, tune and bench policies print with --json.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
) -> None:
    """Write one self-contained HTML page: latency, where the time went, acceptance, hints, cost."""
    from foredraft.files import check_folders, written_together
    from foredraft.observe.report import read_sources, report_page

    check_folders([out])
    sources = read_sources(files)
    page = report_page(sources).encode()
    written_together({out: page})
    subjects = sum(len(source.subjects) for source in sources)
    trials = sum(len(study.trials) for source in sources for study in source.studies)
    tried = f" and {trials} trials" if trials else ""
    typer.echo(f"{out}: {subjects} policies{tried} of {len(sources)} files, {len(page):,} bytes, nothing to fetch")
