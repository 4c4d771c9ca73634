"""From files to what the page shows. Each kind of file is known by its content, not by its name."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from foredraft.edge.session_report import SERVER, exactness
from foredraft.errors import ConfigError
from foredraft.observe.aggregate import TIMES
from foredraft.observe.record.frames import TITLE
from foredraft.observe.report.recorded import source_of_record
from foredraft.observe.report.studies import source_of_study
from foredraft.observe.report.subjects import (
    COST,
    ENERGY,
    Bench,
    Promise,
    Source,
    Subject,
    number,
    pooled,
    spread_of,
    told_in,
)
from foredraft.profiles.strict import convert

KINDS: Final = "a record, or what generate, simulate, tune or bench policies print with --json"
_MILLION: Final = 1e6


def read_sources(paths: Sequence[Path]) -> list[Source]:
    """What the files hold, subjects named apart. Raises ConfigError, RecordError naming the file."""
    if not paths:
        raise ConfigError(f"nothing to report on; name files: {KINDS}")
    repeated = next((path for path in paths if paths.count(path) > 1), None)
    if repeated is not None:
        raise ConfigError(f"{repeated} is there twice; once is enough")
    return [_source(path) for path in paths]


def _source(path: Path) -> Source:
    try:
        with path.open("rb") as file:
            if file.read(len(TITLE)) == TITLE:
                return source_of_record(path)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: neither {KINDS}") from error
    said = _parsed(path, text)
    for knows, read in _READERS:
        if knows(said[0]):
            if len(said) > 1 and read is not _sessions:
                raise ConfigError(f"{path}: {len(said)} JSON objects; of such a file, only the first would be read")
            return read(path, said)
    raise ConfigError(f"{path}: JSON, but not what Foredraft writes: it should be {KINDS}")


def _parsed(path: Path, text: str) -> list[dict[str, Any]]:
    """The JSON objects in a file: one, or one per line."""
    try:
        objects = [json.loads(text)]
    except RecursionError as error:
        raise ConfigError(f"{path}: JSON, nested too deep") from error
    except ValueError as error:
        try:
            objects = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            objects = []
        if not objects:
            raise ConfigError(
                f"{path}: not whole JSON ({error}): it is cut off, or something else; it should be {KINDS}"
            ) from error
    if not all(isinstance(one, dict) and one for one in objects):
        raise ConfigError(f"{path}: JSON, but no object; it should be {KINDS}")
    return objects


def _is_session(said: Mapping[str, Any]) -> bool:
    return {"policy", "finish_reason", "tpot_s"} <= said.keys()


def _is_simulation(said: Mapping[str, Any]) -> bool:
    return {"scenario", "policies", "seeds"} <= said.keys()


def _is_study(said: Mapping[str, Any]) -> bool:
    return {"objectives", "front", "candidates"} <= said.keys()


def _is_bench(said: Mapping[str, Any]) -> bool:
    return all(isinstance(one, dict) and {"says", "figures", "rows"} <= one.keys() for one in said.values())


def _sessions(path: Path, said: Sequence[Mapping[str, Any]]) -> Source:
    """What ``generate --json`` printed, once or several times, one policy's together."""
    by_policy: dict[str, list[dict[str, float]]] = {}
    about: set[str] = set()
    for index, one in enumerate(said):
        where = str(path) if len(said) == 1 else f"{path}: object {index + 1}"
        if not _is_session(one):
            raise ConfigError(f"{where}: the others are of foredraft generate --json, this is not")
        figures = told_in(one, where)
        by_policy.setdefault(str(one["policy"]), []).append(figures)
        if one.get("policy_from") == SERVER:
            about.add(f"{one['policy']}: recommended by the server")
        if "exact" in one:
            about.add(f"texts {exactness(one['exact'])}")
        if one.get("draft"):
            about.add(f"draft: {one['draft']}")
        if one.get("pace"):
            about.add(f"EMULATED device of the draft: {one['pace']}")
        about |= {"EMULATED link" for _ in one.get("emulated_links") or ()}
    subjects = [_of_sessions(policy, path, figures) for policy, figures in by_policy.items()]
    return Source(path.name, "real sessions", [f"{len(said)} session(s)", *sorted(about)], subjects=subjects)


def _of_sessions(policy: str, path: Path, sessions: Sequence[Mapping[str, float]]) -> Subject:
    return Subject(policy, path.name, "real", len(sessions), pooled(sessions), spread_of(sessions))


class _Input(Struct, frozen=True):
    title: str = ""
    profile: str = ""
    overridden: dict[str, Any] = {}
    assumed: tuple[str, ...] = ()


class _Inputs(Struct, frozen=True):
    edge: _Input = _Input()
    cloud: _Input = _Input()
    link: _Input = _Input()
    pair: dict[str, Any] = {}


class _Simulated(Struct, frozen=True):
    """What ``simulate --json`` prints, as far as the page shows it."""

    scenario: str
    seeds: tuple[int, ...]
    requests_per_seed: int
    policies: Annotated[tuple[dict[str, Any], ...], Meta(min_length=1)]
    title: str = ""
    inputs: _Inputs = _Inputs()
    warnings: tuple[str, ...] = ()
    same_texts: bool = True


def _simulation(path: Path, said: Sequence[Mapping[str, Any]]) -> Source:
    whole = convert(dict(said[0]), _Simulated, path, ConfigError)
    requests, seeds = whole.requests_per_seed, len(whole.seeds)
    about = [whole.title or whole.scenario, f"{seeds} seed(s) with {requests} text(s) each"]
    for name in ("edge", "cloud", "link"):
        about.append(_input_said(name, getattr(whole.inputs, name)))
    if whole.inputs.pair.get("kind") == "synthetic":
        about.append("pair: synthetic, ASSUMED")
    warnings = list(whole.warnings)
    if not whole.same_texts:
        warnings.append("The policies' texts DIFFER, which must never happen.")
    subjects = [_of_policy(path, one, requests * seeds) for one in whole.policies]
    return Source(path.name, "simulated", about, warnings, subjects)


def _input_said(name: str, said: _Input) -> str:
    line = f"{name}: {said.title or said.profile or 'unknown'}"
    if said.overridden:
        line += f", OVERRIDDEN: {', '.join(said.overridden)}"
    if said.assumed:
        line += f"; ASSUMED: {', '.join(said.assumed)}"
    return line


def _of_policy(path: Path, said: Mapping[str, Any], texts: int) -> Subject:
    name = str(said.get("policy"))
    where = f"{path}: {name}"
    figures = told_in(said, where)
    if said.get("cost_busy_usd") is not None and figures["new_tokens"]:
        figures[COST] = number(said["cost_busy_usd"], f"{where}: cost_busy_usd") / figures["new_tokens"] * _MILLION
    if said.get(ENERGY) is not None:
        figures[ENERGY] = number(said[ENERGY], f"{where}: {ENERGY}")
    spread: dict[str, dict[str, float]] = convert({"said": said.get("percentiles")}, _Spread, where, ConfigError).said
    return Subject(name, path.name, "simulated", texts, figures, {key: spread[key] for key in TIMES if key in spread})


class _Spread(Struct, frozen=True):
    said: dict[str, dict[str, float]]


class _Figure(Struct, frozen=True):
    name: str
    value: float
    unit: str = ""
    bound: float | None = None
    at_least: bool = False


class _Part(Struct, frozen=True):
    """A part of what ``bench policies --json`` prints."""

    says: str
    figures: tuple[_Figure, ...]
    rows: tuple[dict[str, Any], ...]


def _benches(path: Path, said: Sequence[Mapping[str, Any]]) -> Source:
    benches = []
    for name, plain in said[0].items():
        part = convert(plain, _Part, f"{path}: {name}", ConfigError)
        promises = [Promise(one.name, one.value, one.unit, one.bound, one.at_least) for one in part.figures]
        benches.append(Bench(name, part.says, path.name, promises, part.rows))
    return Source(path.name, "policy benchmark, simulated", [f"{len(benches)} part(s)"], benches=benches)


_Reader = Callable[[Path, Sequence[Mapping[str, Any]]], Source]
_READERS: Final[tuple[tuple[Callable[[Mapping[str, Any]], bool], _Reader], ...]] = (
    (_is_session, _sessions),
    (_is_simulation, _simulation),
    (_is_study, source_of_study),
    (_is_bench, _benches),
)
