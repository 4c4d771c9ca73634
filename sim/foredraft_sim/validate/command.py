"""``foredraft validate``: how far the simulation is from this machine's reality."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foredraft.errors import UnknownNameError
from foredraft.progress import progress

if TYPE_CHECKING:
    from foredraft.profiles import Profile
    from foredraft_sim.validate.carried import Carried
    from foredraft_sim.validate.crowd import Found
    from foredraft_sim.validate.run import Validation
    from foredraft_sim.validate.sessions import Session


def validate(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer policies, links, prompts and tokens.")] = False,
    paced: Annotated[
        bool, typer.Option("--paced", help="EMULATION: slow the engines to 60 ms a pass and 6 ms a draft step.")
    ] = False,
    only: Annotated[str, typer.Option(help="One part: sessions, crowd (1, 4 and 8 edges at once), or capacity.")] = "",
    model: Annotated[str, typer.Option(help="The target: folder, hub id, GGUF file or 'demo'.")] = "demo",
    draft: Annotated[str, typer.Option(help="The sessions' draft: folder, hub id, GGUF file or 'demo'.")] = "demo",
    threads: Annotated[int, typer.Option(help="The crowd's target's; with 1 it has a core to itself.", min=1)] = 1,
    force: Annotated[bool, typer.Option("--force", help="Go on where calls vary too much to be measured.")] = False,
    out: Annotated[
        Path,
        typer.Option(help="Folder for page, figures and profiles; 'validation' by default.", show_default=False),
    ] = Path("validation"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Profile this machine, run real sessions, simulate the same, and compare.

    A pair of models in two processes, each on a core, over shaped links; then (but not with --paced) 1, 4 and 8 edges
    at once on one target that batches. With --only capacity: how many devices one server carries, as planned and as
    measured with as many edges. Targets that are missed are named, and the exit code is 1. The whole takes about
    twenty minutes (paced: longer), the quick one six.
    """
    from foredraft.errors import needs
    from foredraft.files import made_folder, written_together
    from foredraft_sim.validate import run
    from foredraft_sim.validate.carried import of as carried_of
    from foredraft_sim.validate.carried import validate_carried
    from foredraft_sim.validate.crowd import Crowd, validate_crowd
    from foredraft_sim.validate.plan import plan_of
    from foredraft_sim.validate.sessions import cores

    needs("torch", "matplotlib")
    if only not in ("", *_PARTS):
        raise UnknownNameError("part", only, _PARTS)
    made_folder(out)
    found, crowd, carried = None, None, None
    with progress("validating") as show:

        def tell(what: str, share: float) -> None:
            show(share, 1.0, what)

        if only == "capacity":
            asked = carried_of(model, threads, quick=quick)
            carried = validate_carried(asked, cores(), force=force, tell=tell)
        if only in ("", "sessions"):
            found = run.validate(plan_of(quick=quick, paced=paced, model=model, draft=draft), force=force, tell=tell)
        if only == "crowd" or not (only or paced):  # an emulated device is not what a profile is measured of
            crowd = validate_crowd(Crowd(model, threads, runs=2 if quick else 3), cores(), force=force, tell=tell)
    found = found and replace(found, crowd=crowd)
    plain = {} if found is None else _plain_sessions(found)
    parts = {"crowd": crowd, "capacity": carried}
    plain |= {name: part.plain() for name, part in parts.items() if part is not None}
    written_together({out / name: data for name, data in _files(found, [crowd, carried], plain).items()})
    if as_json:
        typer.echo(json.dumps(plain))
    else:
        _show(found, crowd, carried, out)
    if (found is not None and found.verdict.missed()) or any(part and part.missed() for part in (crowd, carried)):
        raise typer.Exit(1)


_PARTS = ("sessions", "crowd", "capacity")


def _plain_sessions(found: "Validation") -> dict[str, object]:
    return found.verdict.plain() | {
        "cores": found.cores.said,
        "paced": found.plan.paced,
        "load": found.load,
        "sessions_real": [_plain(one) for one in found.real],
        "sessions_simulated": [_plain(one) for one in found.simulated],
    }


def _files(
    found: "Validation | None", others: "Sequence[Found | Carried | None]", plain: dict[str, object]
) -> dict[str, bytes]:
    """What is written: the page, the figures, and the profiles that were measured."""
    from foredraft.profiles import render_profile
    from foredraft_sim.validate.page import page
    from foredraft_sim.validate.pictures import pictures

    files = {"validation.json": json.dumps(plain, indent=1).encode()}
    profiles: list[Profile] = [one.target for one in others if one is not None]
    if found is not None:
        files["validation.html"] = page(found, pictures(found)).encode()
        profiles += [] if found.plan.paced else [found.profiles.target, found.profiles.draft]
    return files | {f"{profile.name}.toml": render_profile(profile).encode() for profile in profiles}


def _plain(session: "Session") -> dict[str, object]:
    plain = asdict(session)
    del plain["tokens"]
    return plain


def _show(found: "Validation | None", crowd: "Found | None", carried: "Carried | None", out: Path) -> None:
    from foredraft_sim.validate import page

    tables, lines = [], []
    if found is not None:
        tables += [page.cell_rows(found), page.error_rows(found), page.ranking_rows(found)]
        lines += page.summary_lines(found)
    if crowd is not None:
        tables.append(page.crowd_rows(crowd))
        lines += page.crowd_lines(crowd)
    if carried is not None:
        lines += carried.lines()
    for rows in tables:
        for line in page.text_lines(rows):
            typer.echo(line)
        typer.echo()
    for line in lines:
        typer.echo(line)
    typer.echo(f"wrote {out / ('validation.json' if found is None else 'validation.html')}")
