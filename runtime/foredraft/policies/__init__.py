"""Policies by name.

A specification is a name with optional parameters, ``sync`` or ``sync:gamma=6``. Names come
from the entry-point group ``foredraft.policies``, so other packages can add their own; a
class of one's own goes as ``module:Class`` (parameters after a second colon). In its place a
policy file may be named (``policy_file``).
"""

import importlib
import logging
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import Any, cast

from foredraft.edge.policy import Policy
from foredraft.edge.renamed import METHODS, MODULES, PARAMETERS
from foredraft.errors import ConfigError, UnknownNameError

log = logging.getLogger("foredraft.policies")

GROUP = "foredraft.policies"
SUFFIX = ".toml"
"""What the name of a policy file ends in."""


@cache  # milliseconds: a file of every installed package is read
def _installed() -> EntryPoints:
    return entry_points(group=GROUP)


@cache  # at each load Python remembers one more name, up to thousands
def _loaded(name: str) -> Any:
    return _installed()[name].load()


def policy_names() -> list[str]:
    """The names of the installed policies."""
    return sorted(_installed().names)


def make_policy(spec: str) -> Policy:
    """The policy that ``spec``, or the policy file of that name, describes. Raises UnknownNameError, ConfigError."""
    if spec.endswith(SUFFIX):
        from foredraft.policies.policy_file import read_policy_file

        spec = read_policy_file(Path(spec)).spec
    factory, given = policy_class(spec)
    _check_methods(spec, factory)
    return cast(Policy, factory(**given))


def _check_methods(spec: str, factory: Any) -> None:
    """Raise ConfigError for a class that does not answer what policies are asked."""
    for method in ("verify_params", "step", "ship"):
        if not hasattr(factory, method):
            old = next((old for old, new in METHODS.items() if new == method and hasattr(factory, old)), "")
            hint = f"; its method {old!r} is called {method!r} since version 0.2" if old else " (docs/policies.md)"
            raise ConfigError(f"policy {spec!r} has no method {method!r}{hint}")


def policy_class(spec: str) -> tuple[Any, dict[str, Any]]:
    """What makes the policy, and the parameters that ``spec`` gives it. Raises UnknownNameError, ConfigError."""
    name, _, parameters = spec.partition(":")
    known = _installed()
    if name in known.names:
        factory = _loaded(name)
    elif parameters:
        class_name, _, parameters = parameters.partition(":")
        factory = _load(name, class_name)
    else:
        raise UnknownNameError("policy", name, known.names)
    return factory, _parse(spec, factory, parameters)


def _load(module: str, class_name: str) -> Any:
    if module.startswith("."):
        raise ConfigError(f"no policy {module}:{class_name}: give the module's whole name")
    try:
        return getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        moved = isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("foredraft.")
        way_out = MODULES if moved else f"installed policies: {', '.join(policy_names())}"
        raise ConfigError(f"no policy {module}:{class_name} ({error}); {way_out}") from error


def _parse(spec: str, factory: Any, text: str) -> dict[str, Any]:
    """``gamma=6,threshold=0.8`` as keyword arguments of the policy's own types."""
    kinds = {field.name: field.default for field in fields(factory)} if is_dataclass(factory) else {}
    kinds.pop("name", None)
    values: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if key in PARAMETERS:
            log.warning("policy %r: %s is called %s since version 0.2", spec, key, PARAMETERS[key])
            key = PARAMETERS[key]
        if key not in kinds:
            raise UnknownNameError(f"parameter of policy {spec.partition(':')[0]}", key, kinds)
        try:
            values[key] = _convert(kinds[key], value if equals else "true")
        except ValueError:
            kind = type(kinds[key]).__name__
            raise ConfigError(f"policy {spec!r}: {key} must be of type {kind}, not {value!r}") from None
    return values


def _convert(default: Any, value: str) -> Any:
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise ValueError(value)
        return value.lower() == "true"
    if isinstance(default, tuple):
        return tuple(int(item) for item in value.split("+"))
    return type(default)(value)
