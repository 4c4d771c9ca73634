"""From files to what the page shows. Each kind of file is known by its content, not by its name."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from foredraft.errors import ConfigError
from foredraft.record.frames import TITLE
from foredraft.report.recorded import source_of_record
from foredraft.report.subjects import COST, COUNTS, ENERGY, TIMES, Bench, Promise, Source, Subject, number, spread_of

KINDS: Final = "a record, or what generate, simulate or bench policies print with --json"
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
        figures = {name: number(one.get(name), f"{where}: {name}") for name in (*TIMES, *COUNTS)}
        by_policy.setdefault(str(one["policy"]), []).append(figures)
        if one.get("draft"):
            about.add(f"draft: {one['draft']}")
        if one.get("pace"):
            about.add(f"EMULATED device of the draft: {one['pace']}")
        about |= {"EMULATED link" for _ in one.get("emulated_links") or ()}
    subjects = [_of_sessions(policy, path, figures) for policy, figures in by_policy.items()]
    return Source(path.name, "real sessions", [f"{len(said)} session(s)", *sorted(about)], subjects=subjects)


def _of_sessions(policy: str, path: Path, sessions: Sequence[Mapping[str, float]]) -> Subject:
    figures = {name: fmean(one[name] for one in sessions) for name in TIMES}
    figures |= {name: sum(one[name] for one in sessions) for name in COUNTS}
    return Subject(policy, path.name, "real", len(sessions), figures, spread_of(sessions))


def _simulation(path: Path, said: Sequence[Mapping[str, Any]]) -> Source:
    """What ``simulate --json`` printed."""
    whole = said[0]
    policies = whole["policies"]
    if not isinstance(policies, list) or not all(isinstance(one, dict) for one in policies) or not policies:
        raise ConfigError(f"{path}: policies: a list of objects is missing; was the file written by another version?")
    requests = number(whole.get("requests_per_seed"), f"{path}: requests_per_seed")
    texts = int(requests) * len(whole["seeds"])
    about = [
        str(whole.get("title") or whole["scenario"]),
        f"{len(whole['seeds'])} seed(s) with {requests:g} text(s) each",
    ]
    inputs = whole.get("inputs") or {}
    for name in ("edge", "cloud", "link"):
        about += _input_said(name, inputs.get(name) or {})
    if (inputs.get("pair") or {}).get("kind") == "synthetic":
        about.append("pair: synthetic, ASSUMED")
    warnings = [str(one) for one in whole.get("warnings") or ()]
    if whole.get("same_texts") is False:
        warnings.append("The policies' texts DIFFER, which must never happen.")
    subjects = [_of_policy(path, one, texts) for one in policies]
    return Source(path.name, "simulated", about, warnings, subjects)


def _input_said(name: str, said: Mapping[str, Any]) -> list[str]:
    if not said:
        return []
    line = f"{name}: {said.get('title') or said.get('profile')}"
    if said.get("overridden"):
        line += f", OVERRIDDEN: {', '.join(said['overridden'])}"
    if said.get("assumed"):
        line += f"; ASSUMED: {', '.join(said['assumed'])}"
    return [line]


def _of_policy(path: Path, said: Mapping[str, Any], texts: int) -> Subject:
    name = str(said.get("policy"))
    where = f"{path}: {name}"
    figures = {key: number(said.get(key), f"{where}: {key}") for key in (*TIMES, *COUNTS)}
    if said.get("cost_busy_usd") is not None:
        busy_usd = number(said["cost_busy_usd"], f"{where}: cost_busy_usd")
        figures[COST] = busy_usd / figures["new_tokens"] * _MILLION
    if said.get(ENERGY) is not None:
        figures[ENERGY] = number(said[ENERGY], f"{where}: {ENERGY}")
    percentiles = said.get("percentiles")
    if not isinstance(percentiles, dict):
        raise ConfigError(f"{where}: percentiles are missing; was the file written by another version?")
    spread = {
        key: {rank: number(value, f"{where}: percentiles.{key}.{rank}") for rank, value in percentiles[key].items()}
        for key in TIMES
        if isinstance(percentiles.get(key), dict)
    }
    return Subject(name, path.name, "simulated", texts, figures, spread)


def _benches(path: Path, said: Sequence[Mapping[str, Any]]) -> Source:
    """What ``bench policies --json`` printed."""
    benches = []
    for name, part in said[0].items():
        where = f"{path}: {name}"
        promises = [_promise(one, where) for one in part["figures"]]
        rows = part["rows"]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ConfigError(f"{where}: rows must be objects; was the file written by another version?")
        benches.append(Bench(str(name), str(part["says"]), path.name, promises, rows))
    return Source(path.name, "policy benchmark, simulated", [f"{len(benches)} parts"], benches=benches)


def _promise(said: Any, where: str) -> Promise:
    if not isinstance(said, dict):
        raise ConfigError(f"{where}: figures must be objects; was the file written by another version?")
    bound = said.get("bound")
    return Promise(
        str(said.get("name")),
        number(said.get("value"), f"{where}: {said.get('name')}"),
        str(said.get("unit", "")),
        None if bound is None else number(bound, f"{where}: bound"),
        bool(said.get("at_least")),
    )


_Reader = Callable[[Path, Sequence[Mapping[str, Any]]], Source]
_READERS: Final[tuple[tuple[Callable[[Mapping[str, Any]], bool], _Reader], ...]] = (
    (_is_session, _sessions),
    (_is_simulation, _simulation),
    (_is_bench, _benches),
)
