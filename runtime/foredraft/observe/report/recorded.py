"""From a record to a subject: what only a record knows is where the time went, position by position."""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Final

from foredraft.edge.session_report import SERVER, exactness
from foredraft.errors import RecordError
from foredraft.observe.record.cloud_side import placed, round_trip_s
from foredraft.observe.record.frames import UNASKED, Noted
from foredraft.observe.record.reading import Record, RecordedSession, read_record
from foredraft.observe.report.subjects import Exit, Source, Subject, pooled, spread_of, told_in

PARTS: Final = ("prefill", "pass", "pass and draft", "draft", "link", "other")
"""Where a moment goes, in this order of preference: ``link`` is what nothing but a message on its way accounts for."""

STRETCH: Final = 32
"""Tokens of the text that are taken together."""

_Interval = tuple[float, float]


def source_of_record(path: Path) -> Source:
    """What a record says; sessions that were cut off are left out. Raises RecordError where none is whole."""
    record = read_record(path)
    whole = [session for session in record.sessions if session.ended is not None and session.tokens]
    if not whole:
        cut = f" ({record.cut})" if record.cut else ""
        raise RecordError(f"{path}: no session in it has ended{cut}; there is nothing to report on")
    setup = record.setup
    about = [f"{len(whole)} session(s), {setup.policy}"]
    if any(session.figures.get("policy_from") == SERVER for session in whole):
        about[0] += ", recommended by the server"
    if not setup.simulated:
        about.append(f"texts {exactness(all(session.figures.get('exact') for session in whole))}")
    for name, profile in (("edge", setup.edge), ("cloud", setup.cloud), ("link", setup.link)):
        if profile is not None:
            word = "" if setup.simulated else "EMULATED "
            about.append(f"{word}{name}: {profile.get('title') or profile.get('name')}")
    warnings = [str(record.cut)] if record.cut else []
    left_out = len(record.sessions) - len(whole)
    if left_out:
        warnings.append(f"{left_out} session(s) were cut off and are left out")
    kind = "simulated" if setup.simulated else "real"
    subject = _subject(record, whole, kind)
    return Source(path.name, f"record of {kind} sessions", about, [*warnings, *record.notes], [subject])


def _subject(record: Record, whole: Sequence[RecordedSession], kind: str) -> Subject:
    sessions = [_figures(record.path, session) for session in whole]
    return Subject(
        record.setup.policy,
        record.path.name,
        kind,
        len(whole),
        pooled(sessions),
        spread_of(sessions),
        parts=_parts(record, whole),
        chain=_chain(whole),
        along=_along(whole),
        exits=_exits(record, whole),
        gaps_s=_gaps_s(whole),
    )


def _figures(path: Path, session: RecordedSession) -> dict[str, float]:
    return told_in(session.figures | {"new_tokens": len(session.tokens)}, f"{path}: session {session.number}")


def _of(session: RecordedSession, where: str, kind: str) -> list[Noted]:
    return [one for one in session.noted if (one.where, one.kind) == (where, kind)]


def _parts(record: Record, whole: Sequence[RecordedSession]) -> dict[str, float]:
    """Seconds per token by part, from the first moment of each session to its last commit; they add up to all of it."""
    total = dict.fromkeys(PARTS, 0.0)
    tokens = sum(len(session.tokens) for session in whole)
    for session in whole:
        noted = session.noted
        if not record.setup.simulated:
            noted = tuple(placed(noted, round_trip_s(noted) / 2))
        commits = _of(session, "edge", "commit")
        if not commits:
            continue
        busy = _busy(noted)
        for part, taken_s in swept(busy, session.began.began_s, commits[-1].t_s).items():
            total[part] += taken_s
    return {part: taken_s / tokens for part, taken_s in total.items()}


def _busy(noted: Iterable[Noted]) -> dict[str, list[_Interval]]:
    """When each of them was at work."""
    found: dict[str, list[_Interval]] = {name: [] for name in ("prefill", "pass", "draft", "link")}
    passes: deque[float] = deque()  # when those began whose commit is not at the edge yet
    for one in noted:
        match one.where, one.kind:
            case "edge", "draft":
                found["draft"].append((one.data["began_s"], one.t_s))
            case "cloud", "verdict":
                began_s = one.t_s - one.data["pass_s"]
                found["pass"].append((began_s, one.t_s))
                passes.append(began_s)
            case "edge", "commit":
                queued_s = (passes.popleft() if passes else one.t_s) - one.data["queue_s"]
                found["prefill"].append((queued_s - one.data["prefill_s"], queued_s))
            case (("uplink" | "downlink"), _):
                if "sent_s" in one.data:
                    found["link"].append((one.data["sent_s"], one.t_s))
    return found


def swept(busy: dict[str, list[_Interval]], from_s: float, to_s: float) -> dict[str, float]:
    """How the time between two moments is shared out among ``PARTS``: seconds, which add up to all of it."""
    edges = [(max(start, from_s), 1, name) for name, spans in busy.items() for start, end in spans if end > from_s]
    edges += [(min(end, to_s), -1, name) for name, spans in busy.items() for start, end in spans if end > from_s]
    edges = [(at, change, name) for at, change, name in edges if at <= to_s]
    edges.sort()
    running = dict.fromkeys(busy, 0)
    total = dict.fromkeys(PARTS, 0.0)
    at_s = from_s
    for edge_s, change, name in [*edges, (to_s, 0, "")]:
        total[_part(running)] += max(0.0, edge_s - at_s)
        at_s = max(at_s, edge_s)
        if name:
            running[name] += change
    return total


def _part(running: dict[str, int]) -> str:
    if running["pass"] > 0:
        return "pass and draft" if running["draft"] > 0 else "pass"
    for part in ("prefill", "draft", "link"):
        if running[part] > 0:
            return part
    return "other"


def _chain(whole: Sequence[RecordedSession]) -> list[tuple[int, int]]:
    """Per depth below the tip: how many passes had draft nodes for it, and how many accepted one that deep.

    A pass over a tree counts as deep as it accepted, or as its nodes in a row would be.
    """
    reached: list[list[int]] = []
    for session in whole:
        for commit in _of(session, "edge", "commit"):
            drafted, accepted = int(commit.data.get("drafted", 0)), int(commit.data.get("accepted", 0))
            for depth in range(drafted):
                if depth == len(reached):
                    reached.append([0, 0])
                reached[depth][0] += 1
                reached[depth][1] += accepted > depth
    return [(offered, accepted) for offered, accepted in reached]


def _along(whole: Sequence[RecordedSession]) -> list[tuple[int, int, int]]:
    """Per stretch of the text: how often the draft was asked, and how often its first guess was the token."""
    found: dict[int, list[int]] = {}
    for session in whole:
        for position in session.positions:
            if position.rank != UNASKED:
                stretch = (position.position - session.began.prompt_tokens) // STRETCH
                counts = found.setdefault(stretch, [0, 0])
                counts[0] += 1
                counts[1] += position.rank == 0
    return [(stretch * STRETCH, *counts) for stretch, counts in sorted(found.items())]  # type: ignore[misc]


def _exits(record: Record, whole: Sequence[RecordedSession]) -> list[Exit]:
    """What each exit said of the committed tokens."""
    layers = sorted(record.setup.models.exits)
    said: dict[int, list[tuple[bool, float]]] = {layer: [] for layer in layers}
    for session in whole:
        for position in session.positions:
            for layer, (_, confidence), right in zip(layers, position.predictions, position.right, strict=False):
                said[layer].append((right, confidence))
    return [
        Exit(layer, len(heard), sum(right for right, _ in heard), fmean(confidence for _, confidence in heard))
        for layer, heard in said.items()
        if heard
    ]


def _gaps_s(whole: Sequence[RecordedSession]) -> list[float]:
    """Between one commit and the next, sorted."""
    gaps = []
    for session in whole:
        times_s = [one.t_s for one in _of(session, "edge", "commit")]
        gaps += [later - earlier for earlier, later in pairwise(times_s)]
    return sorted(gaps)
