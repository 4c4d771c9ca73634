"""From a profile to TOML, the way that ``reading`` takes it; ``parse_profile(render_profile(p))`` is ``p``."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from foredraft.profiles.schema import Profile, Provenance


def render_profile(profile: Profile) -> str:
    """The profile as TOML. A number without provenance is a default, and is left out."""
    plain = msgspec.to_builtins(msgspec.structs.replace(profile, provenance={}, path=None))
    del plain["provenance"], plain["path"]
    head = [f"{key} = {_text(plain.pop(key))}" for key in ("name", "title", "kind", "notes") if plain.get(key)]
    plain.pop("notes", None)
    return "\n".join(head + _tables(plain, "", "", profile.provenance)) + "\n"


def _tables(plain: Mapping[str, Any], header: str, at: str, provenance: Mapping[str, Provenance]) -> list[str]:
    """The lines of a table's own keys, and below them its tables."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in plain.items():
        place = f"{at}{key}"
        if place in provenance:
            lines.append(f"{key} = {_number(value, provenance[place])}")
        elif isinstance(value, str):
            lines.append(f"{key} = {_text(value)}")
        elif isinstance(value, bool):
            lines.append(f"{key} = {str(value).lower()}")
        elif isinstance(value, Mapping):
            tables += _section(f"[{header}{key}]", value, f"{header}{key}.", f"{place}.", provenance)
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            for index, item in enumerate(value):
                tables += _section(f"[[{header}{key}]]", item, "", f"{place}.{index}.", provenance)
    return lines + tables


def _section(
    title: str, plain: Mapping[str, Any], header: str, at: str, provenance: Mapping[str, Provenance]
) -> list[str]:
    lines = _tables(plain, header, at, provenance)
    return ["", title, *lines] if lines else []


def _number(value: Any, origin: Provenance) -> str:
    plain = json.dumps(msgspec.to_builtins(value))
    return f"{{ value = {plain}, provenance = {_text(origin.provenance)}, source = {_text(origin.source)} }}"


def _text(value: str) -> str:
    if "\n" in value and '"""' not in value and "\\" not in value:
        return f'"""\n{value}"""'
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
