"""Policy files: a policy with its parameters, and where they come from.

    policy = "seed"

    [parameters]
    gamma = 6
    threshold = 0.35

A file is taken wherever a policy is named: its name ends in ``.toml``. ``foredraft tune`` writes them,
with a table ``[provenance]``; a file written by hand needs none.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, to_builtins

from foredraft.errors import ConfigError
from foredraft.policies import SUFFIX, make_policy, policy_class, policy_names
from foredraft.policies.parameters import text_of
from foredraft.profiles.strict import convert, parse_toml, read_text

Value = bool | int | float | str | tuple[int, ...]


class Origin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a policy's parameters were found.

    ``figures`` are of the seeds that it was chosen by, and so a little too good; ``held_out`` are of
    others. Seconds, USD per million tokens, joules per token.
    """

    scenario: str
    scenario_digest: str
    study: str
    objectives: tuple[str, ...]
    limits: dict[str, float] = {}
    trials: int
    seeds: tuple[int, ...]
    held_out_seeds: tuple[int, ...]
    foredraft: str
    optuna: str
    figures: dict[str, float] = {}
    held_out: dict[str, float] = {}


class PolicyFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a policy file says. ``policy``: an installed name, or module:Class."""

    policy: str
    parameters: dict[str, Value] = {}
    provenance: Origin | None = None

    @property
    def spec(self) -> str:
        """The same as a specification. Raises ConfigError."""
        said = ",".join(f"{name}={text_of(value)}" for name, value in self.parameters.items())
        return f"{self.policy}:{said}" if said else self.policy


def read_policy_file(path: Path) -> PolicyFile:
    """The policy in a file, known to be one that can be made. Raises ConfigError naming file, key and value."""
    plain = parse_toml(read_text(path, ConfigError), path, ConfigError)
    file = convert(plain, PolicyFile, path, ConfigError)
    if "=" in file.policy or file.policy.endswith(SUFFIX):
        raise ConfigError(f"{path}: policy = {file.policy!r}: a name alone; its parameters go into [parameters]")
    try:
        make_policy(file.spec)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return file


def spec_of(policy: str, folder: Path = Path()) -> str:
    """What stands for the policy everywhere: the specification itself, or what is in the file that is named.

    ``folder``: what the file's name is relative to. Raises ConfigError.
    """
    return read_policy_file(folder / policy).spec if policy.endswith(SUFFIX) else policy


def policy_file_of(spec: str, provenance: Origin | None = None) -> PolicyFile:
    """The policy file that says what ``spec`` does. Raises UnknownNameError, ConfigError."""
    parts = spec.split(":", 2)
    name = parts[0] if parts[0] in policy_names() else ":".join(parts[:2])
    return PolicyFile(policy=name, parameters=policy_class(spec)[1], provenance=provenance)


def render_policy_file(file: PolicyFile, comment: str = "") -> str:
    """The file as TOML, which ``read_policy_file`` reads to the same."""
    plain = {key: value for key, value in to_builtins(file).items() if value is not None}
    lines = [f"# {line}" for line in comment.splitlines()]
    return "\n".join([*lines, *_table(plain, "")]) + "\n"


def _table(plain: Mapping[str, Any], at: str) -> list[str]:
    """A table's own keys, and after them its tables."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items() if not isinstance(value, dict)]
    for key, value in plain.items():
        if isinstance(value, dict) and value:
            lines += ["", f"[{at}{_key(key)}]", *_table(value, f"{at}{_key(key)}.")]
    return lines


def _key(name: str) -> str:
    return name if set(name) <= _BARE and name else _value(name)


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


_BARE: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
