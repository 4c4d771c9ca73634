"""From the tables of a TOML file to a struct, strictly: what is wrong is named by file, key and value."""

import difflib
import re
import tomllib
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from foredraft.errors import ConfigError, ProfileError

MAX_FILE_BYTES: Final = 1 << 20
_BEYOND: Final = 1 << 63
_HIDDEN: Final = ("provenance", "path")  # fields of a profile's struct, no keys of its file
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`(?: - at `\$\.?(?P<path>[^`]*)`)?")
_BAD_VALUE = re.compile(r"(?P<why>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)

_T = TypeVar("_T")


def read_text(path: Path, error: type[ConfigError] = ProfileError) -> str:
    """The text of a small file. Raises ``error``."""
    try:
        data = path.read_bytes()
        if len(data) > MAX_FILE_BYTES:
            raise error(f"{path}: {len(data)} bytes are more than such a file has ({MAX_FILE_BYTES})")
        return data.decode("utf-8")
    except UnicodeDecodeError as failure:
        raise error(f"{path}: not a text in UTF-8: {failure}") from failure
    except (OSError, ValueError) as failure:  # ValueError: a name that no file can have
        raise error(f"{path}: cannot be read: {getattr(failure, 'strerror', None) or failure}") from failure


def parse_toml(text: str, path: Path, error: type[ConfigError] = ProfileError) -> dict[str, Any]:
    """The tables in ``text``. Raises ``error``."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as failure:  # tomllib raises more than its own for numbers and depth
        raise error(f"{path}: not TOML: {failure}") from failure
    if not _fits(tables):
        raise error(f"{path}: an integer of more than 64 bits; TOML has none")
    return tables


def _fits(value: Any) -> bool:
    """Whether all integers in it are TOML's: a longer one is neither told in a message nor made a float."""
    if isinstance(value, dict):
        return all(map(_fits, value.values()))
    if isinstance(value, list):
        return all(map(_fits, value))
    return not isinstance(value, int) or -_BEYOND <= value < _BEYOND


def convert(plain: dict[str, Any], kind: type[_T], path: Path | str, error: type[ConfigError] = ProfileError) -> _T:
    """``plain`` as ``kind``. Raises ``error`` naming ``path``, the key (with the nearest known one) and the value."""
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as failure:
        message = str(failure)
        unknown = _UNKNOWN_KEY.fullmatch(message)
        if unknown:
            table = _table_at(kind, plain, unknown["path"] or "")
            raise error(unknown_key(path, table, unknown["key"], unknown["path"] or "")) from None
        bad = _BAD_VALUE.fullmatch(message)
        at = (bad["path"] or "") if bad else ""
        why = bad["why"] if bad else message
        value = _value_at(plain, at)
        given = "" if _is_table(value) else f" = {value!r}"
        raise error(f"{path}: {at or 'file'}{given}: {why}{_instead(value, _choices_at(kind, plain, at))}") from failure


def unknown_key(path: Path | str, table: type[Any] | None, key: str, at: str) -> str:
    """What to say of a key that ``table`` does not have."""
    keys = keys_of(table) if table is not None else []
    where = f"{at}.{key}".lstrip(".")
    known = f"; known: {', '.join(sorted(keys))}" if keys else ""
    return f"{path}: unknown key {where}{nearest(key, keys)}{known}"


def _instead(value: Any, choices: Sequence[str]) -> str:
    """What there is to choose from, if there is, and which of it is meant."""
    return f"{nearest(str(value), choices)}; known: {', '.join(choices)}" if choices else ""


def nearest(key: str, keys: Iterable[str]) -> str:
    """``: did you mean ...?``, or nothing."""
    near = difflib.get_close_matches(key, sorted(keys), n=1, cutoff=0.5)
    return f": did you mean {near[0]!r}?" if near else ""


def keys_of(table: type[Any]) -> list[str]:
    """The keys that a table may have in a file."""
    return [field.encode_name for field in msgspec.structs.fields(table) if field.name not in _HIDDEN]


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
    """The struct that describes the table at ``at``; a union is decided by the tag in the file."""
    table: type[Any] | None = kind
    for step in _steps(at):
        plain = plain.get(step) if isinstance(plain, dict) else plain[step]
        if isinstance(step, str) and table is not None:
            table = _struct_in(get_type_hints(table).get(step), plain)
    return table


def _choices_at(kind: type[Any], plain: Any, at: str) -> list[str]:
    """The values that a key may have, where its type lists them."""
    above, _, key = at.rpartition(".")
    table = _table_at(kind, plain, above)
    hint = None if table is None else get_type_hints(table).get(key)
    return sorted(map(str, get_args(hint))) if get_origin(hint) is Literal else []


def _struct_in(hint: Any, plain: Any) -> type[Any] | None:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        config = hint.__struct_config__
        return hint if config.tag is None or _tag_of(plain, config.tag_field) == config.tag else None
    if get_origin(hint) in (Union, types.UnionType, tuple):
        for part in get_args(hint):
            found = _struct_in(part, plain)
            if found is not None:
                return found
    return None


def _tag_of(plain: Any, field: str | None) -> Any:
    return plain.get(field) if isinstance(plain, dict) and field is not None else None
