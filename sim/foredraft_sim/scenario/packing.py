"""A scenario as it travels to another process or machine: whole, with the files of numbers that it names."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from foredraft_sim.scenario.scenario_file import RecordedPair
from foredraft_sim.workers.files import bring

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
    bring(files)
    return kind(**values)
