"""``foredraft config``: which options hold for a verb, and where each comes from."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from foredraft.errors import UnknownNameError

app = typer.Typer()


@app.command(context_settings={"ignore_unknown_options": True})
def config(
    context: typer.Context,
    verb: Annotated[
        list[str] | None, typer.Argument(help="A verb, such as serve, or exits train; flags may follow.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Options that keep their default, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print which options hold for a verb and where they come from: flag, environment, file or default.

    Keys are not shown. Without a verb, for all verbs.
    """
    from foredraft.cli.settings import settings_of

    words, file = list(verb or ()), context.obj
    told: dict[str, list[dict[str, Any]]] = {}
    for name, command, parent, arguments in _chosen(context.parent, words, ""):
        told[name] = [
            {"option": one.option, "value": one.value, "from": one.source}
            for one in settings_of(command, parent, arguments, file)
            if every or one.source != "default"
        ]
    if as_json:
        typer.echo(json.dumps({"file": None if file is None else str(file), "verbs": told}, default=str))
        return
    typer.echo(f"settings file: {file or 'none (--config FILE, FOREDRAFT_CONFIG, or ~/.config/foredraft/config.toml)'}")
    for name, rows in told.items():
        for row in rows:
            typer.echo(f"{name} {row['option']} = {row['value']}    [{row['from']}]")
        if words and not rows:
            typer.echo(f"{name}: every option keeps its default")


def _chosen(parent: Any, words: list[str], above: str) -> Iterator[tuple[str, Any, Any, list[str]]]:
    """The verbs that ``words`` begin with, or all: name, command, the context they run in, and the words after them."""
    group = parent.command
    names = words[:1] or group.list_commands(parent)
    for name in names:
        command = group.get_command(parent, name)
        if command is None:
            raise UnknownNameError("verb", f"{above}{name}", group.list_commands(parent))
        if hasattr(command, "commands"):
            inner = type(parent)(command, info_name=name, parent=parent)
            yield from _chosen(inner, words[1:], f"{above}{name} ")
        else:
            yield f"{above}{name}", command, parent, words[1:]
