"""From a TOML file to a profile: strict, and with a source for every number.

In a file every number is written as

    base_s = { value = 0.00953, provenance = "published", source = "where it can be read" }

(a list of numbers is one value). Reading takes the values out, checks that none comes without
its provenance, and keeps the provenances in ``profile.provenance`` by dotted path
("target_pass.base_s", "outages.0.start_s").
"""

import difflib
import math
import re
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from foredraft.errors import ProfileError
from foredraft.profiles.schema import KINDS, Profile, Provenance, keys_of

_MARKS = {"value", "provenance", "source"}
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`(?: - at `\$\.?(?P<path>[^`]*)`)?")
_BAD_VALUE = re.compile(r"(?P<why>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_MAX_FILE_BYTES = 1 << 20


def read_profile(path: Path) -> Profile:
    """The profile in the TOML file ``path``. Raises ProfileError naming file, key and value."""
    try:
        data = path.read_bytes()
        if len(data) > _MAX_FILE_BYTES:
            raise ProfileError(f"{path}: {len(data)} bytes are more than a profile has ({_MAX_FILE_BYTES})")
        text = data.decode("utf-8")
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"{path}: not a text in UTF-8: {error}") from error
    return parse_profile(text, path)


def parse_profile(text: str, path: Path) -> Profile:
    """The profile in ``text``; ``path`` is where it comes from, for messages and relative traces."""
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ProfileError(f"{path}: not TOML: {error}") from error
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ProfileError(f"{path}: kind must be one of {', '.join(sorted(KINDS))}, not {kind!r}")
    for key in ("provenance", "path"):  # fields of the struct, no keys of the file
        if key in raw:
            raise _unknown_key(path, KINDS[kind], key, "")
    provenance: dict[str, Provenance] = {}
    plain = _take_values(raw, path, "", provenance)
    profile: Profile = _convert(plain, KINDS[kind], path)
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
        raise ProfileError(f"{path}: {at}: unknown key {unknown[0]!r}{_nearest(unknown[0], _MARKS)}")
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


def _convert(plain: dict[str, Any], kind: type[Any], path: Path) -> Any:
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        message = str(error)
        unknown = _UNKNOWN_KEY.fullmatch(message)
        if unknown:
            table = _table_at(kind, plain, unknown["path"] or "")
            raise _unknown_key(path, table, unknown["key"], unknown["path"] or "") from None
        bad = _BAD_VALUE.fullmatch(message)
        at = (bad["path"] or "") if bad else ""
        why = bad["why"] if bad else message
        given = "" if _is_table(_value_at(plain, at)) else f" = {_value_at(plain, at)!r}"
        raise ProfileError(f"{path}: {at or 'profile'}{given}: {why}") from error


def _unknown_key(path: Path, table: type[Any] | None, key: str, at: str) -> ProfileError:
    keys = keys_of(table) if table is not None else []
    where = f"{at}.{key}".lstrip(".")
    return ProfileError(f"{path}: unknown key {where}{_nearest(key, keys)}; known: {', '.join(sorted(keys))}")


def _nearest(key: str, keys: Any) -> str:
    near = difflib.get_close_matches(key, sorted(keys), n=1, cutoff=0.5)
    return f": did you mean {near[0]!r}?" if near else ""


def _is_table(value: Any) -> bool:
    return isinstance(value, dict | list) and bool(value)


def _steps(at: str) -> list[str | int]:
    """``a.b[0].c`` as ``["a", "b", 0, "c"]``."""
    return [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", at)]


def _value_at(plain: Any, at: str) -> Any:
    for step in _steps(at):
        try:
            plain = plain[step]
        except (KeyError, IndexError, TypeError):
            return None
    return plain


def _table_at(kind: type[Any], plain: Any, at: str) -> type[Any] | None:
    """The struct that describes the table at ``at``; a union is decided by the file's ``shape``."""
    table: type[Any] | None = kind
    for step in _steps(at):
        plain = _value_at(plain, str(step)) if isinstance(step, str) else plain[step]
        if isinstance(step, str) and table is not None:
            shape = plain.get("shape") if isinstance(plain, dict) else None
            table = _struct_in(get_type_hints(table)[step], shape)
    return table


def _struct_in(hint: Any, shape: Any) -> type[Any] | None:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        tag = hint.__struct_config__.tag
        return hint if tag is None or tag == shape else None
    if get_origin(hint) in (Union, types.UnionType, tuple):
        for part in get_args(hint):
            found = _struct_in(part, shape)
            if found is not None:
                return found
    return None
