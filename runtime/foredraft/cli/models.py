"""``foredraft models``: the bundled models and where they lie."""

import json
from typing import Annotated

import typer


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: target, exits, draft.")] = False,
) -> None:
    """Show the bundled models and their folders."""
    from foredraft.demo_models import bundled_pair

    pair = bundled_pair()
    folders = {"target": str(pair.target), "exits": str(pair.exits), "draft": str(pair.draft)}
    if as_json:
        typer.echo(json.dumps(folders))
        return
    for name, folder in folders.items():
        typer.echo(f"{name:7} {folder}")
    typer.echo(f"{pair.size_bytes / 1e6:.1f} MB in all; --model demo and --draft demo name them")
