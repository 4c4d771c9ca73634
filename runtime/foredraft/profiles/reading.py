"""From a TOML file to a profile: strict, and with a source for every number.

In a file every number is written as

    base_s = { value = 0.00953, provenance = "published", source = "where it can be read" }

(a list of numbers is one value). Reading takes the values out, checks that none comes without
its provenance, and keeps the provenances in ``profile.provenance`` by dotted path
("target_pass.base_s", "outages.0.start_s").
"""

import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from foredraft.errors import ProfileError
from foredraft.profiles.schema import KINDS, Profile, Provenance
from foredraft.profiles.strict import convert, nearest, parse_toml, read_text, unknown_key

_MARKS = {"value", "provenance", "source"}


def read_profile(path: Path) -> Profile:
    """The profile in the TOML file ``path``. Raises ProfileError naming file, key and value."""
    return parse_profile(read_text(path), path)


def parse_profile(text: str, path: Path) -> Profile:
    """The profile in ``text``; ``path`` is where it comes from, for messages and relative traces."""
    raw = parse_toml(text, path)
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ProfileError(f"{path}: kind must be one of {', '.join(sorted(KINDS))}, not {kind!r}")
    for key in ("provenance", "path"):  # fields of the struct, no keys of the file
        if key in raw:
            raise ProfileError(unknown_key(path, KINDS[kind], key, ""))
    provenance: dict[str, Provenance] = {}
    plain = _take_values(raw, path, "", provenance)
    profile: Profile = convert(plain, KINDS[kind], path)
    return msgspec.structs.replace(profile, provenance=types.MappingProxyType(provenance), path=path)


def _take_values(node: Any, path: Path, at: str, provenance: dict[str, Provenance]) -> Any:
    """``node`` with each ``{value, provenance, source}`` replaced by its value."""
    if isinstance(node, dict):
        if "value" in node:
            return _take_number(node, path, at, provenance)
        prefix = f"{at}." if at else ""
        return {key: _take_values(item, path, f"{prefix}{key}", provenance) for key, item in node.items()}
    if isinstance(node, list):
        return [_take_values(item, path, f"{at}.{index}", provenance) for index, item in enumerate(node)]
    if isinstance(node, int | float) and not isinstance(node, bool):
        raise ProfileError(
            f"{path}: {at} = {node!r} has no provenance: write "
            f'{{ value = {node!r}, provenance = "assumed", source = "why" }}'
        )
    return node


def _take_number(node: Mapping[str, Any], path: Path, at: str, provenance: dict[str, Provenance]) -> Any:
    unknown = sorted(set(node) - _MARKS)
    if unknown:
        raise ProfileError(f"{path}: {at}: unknown key {unknown[0]!r}{nearest(unknown[0], _MARKS)}")
    for number in _numbers(node["value"]):
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ProfileError(f"{path}: {at} = {number!r}: must be a finite number")
    marks = {key: node[key] for key in node if key != "value"}
    try:
        origin = msgspec.convert(marks, Provenance)
    except msgspec.ValidationError as error:
        kinds = "measured, published, derived or assumed"
        raise ProfileError(f"{path}: {at}: provenance ({kinds}) and source: {error}, in {marks!r}") from error
    if not origin.source.strip():
        raise ProfileError(f"{path}: {at}: the source is empty; say where {node['value']!r} comes from")
    provenance[at] = origin
    return node["value"]


def _numbers(value: Any) -> list[Any]:
    """The leaves of a value that may be a list of lists."""
    if isinstance(value, list):
        return [leaf for item in value for leaf in _numbers(item)]
    return [value]
