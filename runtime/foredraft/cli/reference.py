"""The command line's reference page, from the verbs themselves: ``python -m foredraft.cli.reference > docs/cli.md``."""

from collections.abc import Iterator
from typing import Any

import typer

from foredraft.cli.main import app

HEAD = """# Command line

Written by `python -m foredraft.cli.reference`; a test compares it with the verbs.
Options can come from the environment and a file, too: [Running a server](operating.md#where-options-come-from).
"""


def page() -> str:
    """The page, as Markdown."""
    command = typer.main.get_command(app)
    context = command.make_context("foredraft", [], resilient_parsing=True)
    return "\n".join([HEAD, *_verbs(command, context, "foredraft")]).rstrip() + "\n"


def _verbs(group: Any, context: Any, above: str) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        words = f"{above} {name}"
        if hasattr(command, "list_commands"):
            yield from _verbs(command, type(context)(command, info_name=name, parent=context), words)
            continue
        yield f"\n## {words}\n\n{_told(command.help)}\n"
        yield "| option | |\n|---|---|"
        yield from (_row(param) for param in command.params if param.name != "help")


def _row(param: Any) -> str:
    names = ", ".join(f"`{name}`" for name in param.opts) if param.param_type_name == "option" else f"`{param.name}`"
    default = param.default
    plain = isinstance(default, str | int | float) and not isinstance(default, bool) and default != ""
    told = f" ({_short(str(default))})" if plain and not callable(default) else ""
    return f"| {names} | {_told(getattr(param, 'help', None))}{told} |"


def _short(default: str) -> str:
    """A default of several lines by its first one."""
    first, more, _ = default.partition("\n")
    return _told(f"{first} ..." if more else first)


def _told(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
