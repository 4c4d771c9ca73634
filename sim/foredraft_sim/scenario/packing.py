"""A scenario as it travels to another process or machine: whole, with the files of numbers that it names."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec

from foredraft_sim.scenario.scenario_file import RecordedPair

if TYPE_CHECKING:
    from foredraft_sim.scenario.scenario import Scenario

PROFILES = ("draft", "target", "link", "cloud_draft")


def files_of(scenario: "Scenario") -> list[Path]:
    """The files with numbers that a scenario and its profiles name."""
    link, found = scenario.link, []
    for way in (link.up, link.down):
        if way.trace is not None:
            found.append((link.path or scenario.path).parent / way.trace)
    if isinstance(scenario.pair, RecordedPair):
        found.append(scenario.path.parent / scenario.pair.file)
    return found


def packed(scenario: "Scenario") -> tuple[Callable[..., "Scenario"], tuple[Any, ...]]:
    """As ``__reduce__`` has it. The read-only view of a profile's sources becomes a plain one, which can travel."""
    values = {one.name: getattr(scenario, one.name) for one in fields(scenario)}
    for name in PROFILES:
        if values[name] is not None:
            values[name] = msgspec.structs.replace(values[name], provenance=dict(values[name].provenance))
    files = {path: path.read_bytes() for path in files_of(scenario)}
    return _unpacked, (type(scenario), values, files)


def _unpacked(kind: type["Scenario"], values: Mapping[str, Any], files: Mapping[Path, bytes]) -> "Scenario":
    """The scenario, with files that are not where they were put somewhere else."""
    scenario = kind(**values)
    if not files:
        return scenario
    link, pair = scenario.link, scenario.pair
    folder = (link.path or scenario.path).parent
    ways = {name: getattr(link, name) for name in ("up", "down")}
    for name, way in ways.items():
        if way.trace is not None:
            path = folder / way.trace
            ways[name] = msgspec.structs.replace(way, trace=str(_present(path, files[path])))
    if isinstance(pair, RecordedPair):
        path = scenario.path.parent / pair.file
        pair = msgspec.structs.replace(pair, file=str(_present(path, files[path])))
    return replace(scenario, link=msgspec.structs.replace(link, **ways), pair=pair)


def _present(path: Path, content: bytes) -> Path:
    """A file with this content, absolute."""
    path = path.absolute()
    if path.is_file() and path.read_bytes() == content:
        return path
    copy = Path(_folder().name) / f"{sha256(content).hexdigest()[:16]}-{path.name}"
    if not copy.exists():
        copy.write_bytes(content)
    return copy


@cache
def _folder() -> "TemporaryDirectory[str]":
    """For as long as the process lives."""
    return TemporaryDirectory(prefix="foredraft-")
