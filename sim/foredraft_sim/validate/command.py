"""``foredraft validate``: how far the simulation is from this machine's reality."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foredraft.progress import progress

if TYPE_CHECKING:
    from foredraft_sim.validate.run import Validation
    from foredraft_sim.validate.sessions import Session


def validate(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer policies, links, prompts and tokens.")] = False,
    paced: Annotated[
        bool, typer.Option("--paced", help="EMULATION: slow the engines to 60 ms a pass and 6 ms a draft step.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Go on where calls vary too much to be measured.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for the page, the figures and the profiles.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Profile this machine, run real sessions, simulate the same, and compare.

    The bundled pair in two processes, each on a core, over shaped links. Targets that are missed are named, and the
    exit code is 1. The whole takes about seventeen minutes (paced: longer), the quick one four.
    """
    from foredraft.errors import ConfigError, needs
    from foredraft.files import written_together
    from foredraft.profiles import render_profile
    from foredraft_sim.validate import run
    from foredraft_sim.validate.page import page
    from foredraft_sim.validate.pictures import pictures
    from foredraft_sim.validate.plan import plan_of

    needs("torch", "matplotlib")
    if not out.is_dir():
        raise ConfigError(f"--out {str(out)!r} is no folder; make it first")
    with progress("validating") as show:
        found = run.validate(
            plan_of(quick=quick, paced=paced), force=force, tell=lambda what, share: show(share, 1.0, what)
        )
    plain = found.verdict.plain() | {
        "cores": found.cores.said,
        "paced": paced,
        "load": found.load,
        "sessions_real": [_plain(one) for one in found.real],
        "sessions_simulated": [_plain(one) for one in found.simulated],
    }
    files = {
        out / "validation.html": page(found, pictures(found)).encode(),
        out / "validation.json": json.dumps(plain, indent=1).encode(),
    }
    if not paced:
        for profile in (found.profiles.target, found.profiles.draft):
            files[out / f"{profile.name}.toml"] = render_profile(profile).encode()
    written_together(files)
    if as_json:
        typer.echo(json.dumps(plain))
    else:
        _show(found, out)
    if found.verdict.missed():
        raise typer.Exit(1)


def _plain(session: "Session") -> dict[str, object]:
    plain = asdict(session)
    del plain["tokens"]
    return plain


def _show(found: "Validation", out: Path) -> None:
    from foredraft_sim.validate.page import cell_rows, error_rows, ranking_rows, summary_lines, text_lines

    for rows in (cell_rows(found), error_rows(found), ranking_rows(found)):
        for line in text_lines(rows):
            typer.echo(line)
        typer.echo()
    for line in summary_lines(found):
        typer.echo(line)
    typer.echo(f"wrote {out / 'validation.html'}")
