"""Where options come from, besides the command line: the environment, then a TOML file, then their defaults.

    FOREDRAFT_SERVE_PORT=9000                 the option --port of ``foredraft serve``
    [serve]                                   the same in the file that --config or FOREDRAFT_CONFIG names,
    port = 9000                               or in ~/.config/foredraft/config.toml where that is there

A group's verbs are tables in its table (``[profile.device]``). An option is written as on the command line, without
the leading dashes.
"""

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from foredraft.errors import ConfigError
from foredraft.profiles.strict import parse_toml, read_text

PREFIX: Final = "FOREDRAFT"


@dataclass(frozen=True, slots=True)
class Setting:
    """An option of a verb: what holds, and where it comes from."""

    option: str
    value: Any
    source: str


def config_file(named: Path | None) -> Path | None:
    """The file that holds settings: the one that is named, else the user's own if there is one."""
    if named is not None:
        return named
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    usual = Path(base) / "foredraft" / "config.toml"
    return usual if usual.is_file() else None


def read_settings(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """The tables of a settings file; ``names`` are the verbs there are.

    Raises ConfigError naming the file and the table that is no verb's; what is within is looked at by ``for_verb``.
    """
    tables = parse_toml(read_text(path, ConfigError), path, ConfigError)
    known = list(names)
    for name, table in tables.items():
        if name not in known:
            raise ConfigError(f"{path}: {name!r} is no verb of foredraft{_nearest(name, known)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name} = {table!r}: a verb's options stand in its table: [{name}]")
    return tables


def for_verb(command: Any, table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A verb's table with its options by the names that the command line gives to their values.

    ``command``: a command of typer, or a group of them. Raises ConfigError naming the option that there is not.
    """
    found: dict[str, Any] = {}
    if (verbs := getattr(command, "commands", None)) is not None:
        for name, inner in table.items():
            if name not in verbs or not isinstance(inner, dict):
                raise ConfigError(f"{where}: {name!r} is no verb of {command.name}{_nearest(name, verbs)}")
            found[name] = for_verb(verbs[name], inner, f"{where}.{name}")
        return found
    options = {name.lstrip("-"): param.name for param in command.params for name in param.opts}
    for name, value in table.items():
        plain = name.replace("_", "-")
        if plain not in options:
            raise ConfigError(f"{where}: {name!r} is no option of {command.name}{_nearest(plain, options)}")
        found[options[plain]] = value
    return found


def settings_of(command: Any, parent: Any, arguments: list[str], file: Path | None) -> list[Setting]:
    """What would hold for a verb that is called with ``arguments``. Raises as the command line does."""
    with command.make_context(command.name, list(arguments), parent=parent, resilient_parsing=True) as context:
        return [
            Setting(max(param.opts, key=len), _shown(param.name, context.params.get(param.name)), source)
            for param in command.params
            if param.name in context.params and (source := _source(context, param, file))
        ]


def _source(context: Any, param: Any, file: Path | None) -> str:
    found = context.get_parameter_source(param.name)
    match "" if found is None else found.name:
        case "COMMANDLINE":
            return "flag"
        case "ENVIRONMENT":
            names = [param.envvar] if isinstance(param.envvar, str) else list(param.envvar or ())
            names.append(f"{context.auto_envvar_prefix}_{param.name.upper()}")
            return next((name for name in names if name in os.environ), "environment")
        case "DEFAULT_MAP":
            return str(file)
    return "default"


def _shown(name: str, value: Any) -> Any:
    """A value for people to see; a secret is told by its length alone."""
    if name == "api_key" and value:
        return f"({len(value)} characters)"
    return value


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
