"""A JSON object taken apart field by field: each has its type, and what nobody took is an error, never ignored."""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from foredraft.openai_api.errors import ApiError, invalid

MOST_LEVELS: Final = 128
"""How deep a body may be nested."""

_Kind = TypeVar("_Kind")
_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


class Fields:
    """The fields of ``said``; ``where`` is its path in the request, as error messages name it."""

    def __init__(self, said: Any, where: str = "") -> None:
        if not isinstance(said, dict):
            raise invalid(f"{where or 'the body'} must be an object, not {_short(said)}", where or None)
        self._left: dict[str, Any] = dict(said)
        self._where = where

    def path(self, name: str) -> str:
        """The field's name with its path."""
        return f"{self._where}.{name}" if self._where else name

    def take(self, name: str, kind: type[_Kind]) -> _Kind | None:
        """The field's value; None where it is missing or null. Raises ApiError for another type."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise invalid(f"{self.path(name)} must be {_NAMES[kind]}, not {_short(value)}", self.path(name))
        try:
            return kind(value)  # type: ignore[call-arg]
        except OverflowError as error:  # an integer that no float holds
            raise invalid(f"{self.path(name)} must be {_NAMES[kind]}, not {_short(value)}", self.path(name)) from error

    def number(self, name: str, least: float, most: float) -> float | None:
        """A number within bounds."""
        return self._within(name, self.take(name, float), least, most)

    def integer(self, name: str, least: int, most: int) -> int | None:
        """An integer within bounds."""
        value = self.take(name, int)
        self._within(name, value, least, most)
        return value

    def _within(self, name: str, value: float | None, least: float, most: float) -> float | None:
        if value is not None and not least <= value <= most:
            raise invalid(f"{self.path(name)} must be {least:g} to {most:g}, not {_short(value)}", self.path(name))
        return value

    def any(self, name: str) -> Any:
        """The field as it is; None where it is missing."""
        return self._left.pop(name, None)

    def only(self, name: str, *allowed: Any) -> None:
        """A field that is known, and may have these values alone (or be missing)."""
        value = self._left.pop(name, None)
        if value is not None and not any(value == one and type(value) is type(one) for one in allowed):
            raise invalid(
                f"{self.path(name)} {_short(value)} is not supported here; leave it out",
                self.path(name),
                "unsupported_value",
            )

    def ignore(self, *names: str) -> None:
        """Fields that change nothing here, whatever they say."""
        for name in names:
            self._left.pop(name, None)

    def end(self) -> None:
        """Raise ApiError for what nobody took."""
        for name in (name for name, value in self._left.items() if value is not None):
            raise invalid(
                f"{self.path(name)} is not supported here; leave it out", self.path(name), "unsupported_parameter"
            )


def parse(data: bytes) -> Any:
    """JSON. Raises ApiError."""
    try:
        said = msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:  # msgspec lets bad UTF-8 out as UnicodeDecodeError
        raise invalid(f"the body is not JSON: {error}") from error
    if data.count(b"[") + data.count(b"{") > MOST_LEVELS and not _within_levels(said):
        raise invalid(f"the body is nested deeper than {MOST_LEVELS} levels")
    return said


def _within_levels(said: Any) -> bool:
    """Whether nothing in it is so deep that writing it again would be too much for Python's stack."""
    level = [said]
    for _ in range(MOST_LEVELS):
        held = (one.values() if isinstance(one, dict) else one for one in level)
        level = [one for values in held for one in values if isinstance(one, dict | list)]
        if not level:
            return True
    return False


def strings(value: Any, where: str, most: int) -> Sequence[str]:
    """A string or a list of them; nothing for nothing."""
    if value is None:
        return ()
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise ApiError(400, f"{where} must be a string or a list of strings, not {_short(value)}", param=where)
    if len(listed) > most:
        raise invalid(f"{where} has {len(listed)} strings; at most {most}", where)
    return listed


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 60 else said[:57] + "..."
