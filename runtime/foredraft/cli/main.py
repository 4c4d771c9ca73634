"""The ``foredraft`` command. Its verbs come through the entry-point group ``foredraft.verbs``.

A function is one verb, a typer app a group of verbs, from whatever package. A verb's module is
imported when the verb is used or help is shown, so verbs import what is heavy within functions.
"""

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from foredraft.cli.logs import set_up_logs
from foredraft.cli.settings import PREFIX, config_file, for_verb, read_settings
from foredraft.errors import ForedraftError, UnknownNameError, extras_named

GROUP = "foredraft.verbs"
INTERRUPTED = 130


class Verbs(TyperGroup):
    """The verbs of all installed packages; errors raised on purpose end here, as one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        return sorted(entry_points(group=GROUP).names)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb of that name; None where there is none."""
        known = entry_points(group=GROUP)
        return command_of(known[cmd_name]) if cmd_name in known.names else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Which verb is meant. Raises UnknownNameError, which names the nearest."""
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            raise UnknownNameError("verb", args[0], names)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            with extras_named():
                return super().invoke(ctx)
        except ForedraftError as error:
            complain(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None


def command_of(entry: EntryPoint) -> Any:
    """The command behind an entry point; one that cannot be imported says so when it is used."""
    try:
        verb = entry.load()
    except ImportError as error:
        reason = f"{entry.name!r} ({entry.value}) cannot be loaded: {error}"

        def verb() -> None:
            raise ForedraftError(reason)

        verb.__doc__ = f"Not available: {error}"
    if not isinstance(verb, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(entry.name)(verb)
        verb = app
    else:
        verb._add_completion = False
    command = typer.main.get_command(verb)
    command.name = entry.name
    return command


def complain(message: str) -> None:
    """An error, for people, on stderr."""
    from rich.console import Console

    from foredraft.text.inert import inert

    Console(stderr=True, soft_wrap=True).print(f"error: {inert(message)}", style="red", markup=False, highlight=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        from foredraft.version import __version__

        typer.echo(f"foredraft {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": PREFIX},
    epilog="Options can come from the environment (FOREDRAFT_SERVE_PORT=9000) and from a TOML file, too; "
    "foredraft config shows what holds.",
)


@app.callback()
def foredraft(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", help="A TOML file with options of verbs.", envvar=f"{PREFIX}_CONFIG")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more about what happens, on stderr.")] = False,
    log_format: Annotated[
        str,
        typer.Option(help="On stderr: text, or json, which has each session, too.", envvar=f"{PREFIX}_LOG_FORMAT"),
    ] = "text",
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Edge-cloud speculative decoding with early exits: the large model's text, drafted on the device."""
    set_up_logs(log_format, verbose=verbose)
    _settle(context, config_file(config))


def _settle(context: Any, file: Path | None) -> None:
    """Let the settings file stand behind the options of the verb that is asked for; of all, where they are shown."""
    context.obj = file
    if file is None:
        return
    group = context.command
    tables = read_settings(file, group.list_commands(context))
    wanted = [name for name in tables if context.invoked_subcommand in (name, "config")]
    context.default_map = {
        name: for_verb(group.get_command(context, name), tables[name], f"{file}: {name}") for name in wanted
    }


def main() -> None:
    """The console script."""
    app(prog_name="foredraft")
