"""Devices and link as a live session has met them: profiles of the durations in its record.

A curve goes through the mean duration at each number of tokens that was run, so that a replay of the same
work takes the same time in all; between them it is interpolated, and beyond them extrapolated. For what
a machine can do in general, measure it: ``foredraft profile``.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, Final

from foredraft.core.anchor import ORIGIN, Anchor
from foredraft.core.messages import MAX_MESSAGE_BYTES
from foredraft.errors import RecordError
from foredraft.profiles import (
    Direction,
    DraftProfile,
    Grid,
    Line,
    LinkProfile,
    LinkRange,
    Model,
    Outage,
    Range,
    Setup,
    TargetProfile,
)
from foredraft.record.frames import Noted
from foredraft.record.reading import Record, RecordedSession

NAME: Final = "recorded"
_MOST_CONTEXT: Final = 1 << 40
_MOST_HEAD_SHARE: Final = 0.9

Times = Mapping[int, Sequence[float]]
"""Durations by the number of tokens that were run."""


def measured_target(record: Record) -> TargetProfile:
    """The target as its commits tell: passes, what comes around them, prefill, and how deep the exits are.

    Raises RecordError where no commit is recorded.
    """
    passes_s: dict[int, list[float]] = defaultdict(list)
    prefills: list[tuple[int, float]] = []
    for session in record.sessions:
        uncached = session.began.prompt_tokens  # what the first pass finds
        for one in _of(session, "commit"):
            data = one.data
            if data["prefill_s"] > 0.0 and uncached > 1:
                prefills.append((uncached - 1, data["prefill_s"]))
                uncached = 1
            passes_s[data["drafted"] + uncached].append(data["pass_s"])
            uncached = 1
    if not passes_s:
        raise RecordError(f"{record.path}: no commit in it tells of the cloud's passes; name a profile with --cloud")
    models = record.setup.models
    return TargetProfile(
        name=NAME,
        title="the target as recorded",
        kind="target",
        model=Model(name=models.model_digest, layers=models.layers, head_share=_head_share(record)),
        target_pass=_curve(passes_s, 1, host_s=_mean(_cloud_host_s(record))),
        prefill=_line(prefills),
    )


def measured_draft(record: Record, *, needed: bool) -> DraftProfile:
    """The draft as its steps took. Raises RecordError where there were none, and one is ``needed``."""
    steps_s: dict[int, list[float]] = defaultdict(list)
    prefills: list[tuple[int, float]] = []
    for session in record.sessions:
        for first, new_tokens, took_s in _draft_steps(session):
            if first:
                prefills.append((new_tokens, took_s))
            else:
                steps_s[new_tokens].append(took_s)
    if not steps_s and not prefills:
        if needed:
            raise RecordError(
                f"{record.path}: nothing was drafted in it ({record.setup.policy}), so it does not tell how long that "
                "takes; name a profile with --edge"
            )
        steps_s[1].append(0.0)  # of which nobody will hear
    models = record.setup.models
    host_s = _mean(_edge_host_s(record))
    curve = _curve(steps_s or {1: [took_s for _, took_s in prefills]}, models.draft_nodes, host_s)
    return DraftProfile(
        name=NAME,
        title="the draft as recorded",
        kind="draft",
        model=Model(name=models.draft, layers=1),
        draft_step=curve,
        prefill=_line([one for one in prefills if one[0] > curve.range.new_tokens[1]]),
    )


def measured_link(record: Record) -> LinkProfile:
    """The link as its round trips were: half of their mean each way, cut where it was cut.

    The rate is that of the emulated link, if there was one: messages are too small to tell.
    """
    noted = record.noted
    trips_s = [one.data["round_trip_s"] for one in noted if "round_trip_s" in one.data]
    trip_s = fmean(trips_s) if trips_s else 0.0
    emulated = record.setup.link or {}
    up, down = (
        Direction(delay_s=trip_s / 2, rate_bps=(emulated.get(name) or {}).get("rate_bps")) for name in ("up", "down")
    )
    return LinkProfile(
        name=NAME,
        title="the link as recorded",
        kind="link",
        up=up,
        down=down,
        setup=_setup(record, trip_s),
        outages=_outages(record),
        range=LinkRange(message_bytes=(0, MAX_MESSAGE_BYTES)),
    )


def _cloud_host_s(record: Record) -> Iterator[float]:
    """What the cloud took around its passes, where its commits tell: queues, threads, its loop.

    From the commit before, if nothing was heard since; else from when the last message came, if the
    walker was waiting for it.
    """
    for session in record.sessions:
        before: Noted | None = None
        messages = [one for one in session.noted if (one.where, one.kind) == ("downlink", "Commit")]
        for message, one in zip(messages, _of(session, "commit"), strict=False):
            pass_s, heard_s = one.data["pass_s"] + one.data["prefill_s"], message.data["heard_s"]
            if before is not None and before.data["heard"] == message.data["heard"]:
                yield max(0.0, heard_s - before.data["heard_s"] - pass_s)
            elif heard_s <= message.data["waited_s"] + pass_s:
                yield max(0.0, heard_s - pass_s)
            before = message


def _edge_host_s(record: Record) -> Iterator[float]:
    """What the edge took from whatever called for a draft step to its beginning."""
    for session in record.sessions:
        called_s: float | None = None
        for one in session.noted:
            if one.where == "edge" and one.kind == "draft" and called_s is not None:
                yield max(0.0, one.data["began_s"] - called_s)
            if one.where == "edge" and one.kind in ("draft", "commit", "hint"):
                called_s = one.t_s


def _mean(samples: Iterable[float]) -> float:
    found = list(samples)
    return fmean(found) if found else 0.0


def _of(session: RecordedSession, kind: str) -> list[Noted]:
    return [one for one in session.noted if (one.where, one.kind) == ("edge", kind)]


def _curve(times_s: Times, least_most: int, host_s: float = 0.0) -> Grid:
    axis = tuple(sorted(times_s))
    declared = Range(new_tokens=(1, max(least_most, axis[-1])), context=(0, _MOST_CONTEXT))
    points = (tuple(fmean(times_s[new_tokens]) for new_tokens in axis),)
    return Grid(new_tokens=axis, seconds_s=(points,), host_s=host_s, range=declared)


def _line(calls: Sequence[tuple[int, float]]) -> Line | None:
    """So many seconds per token."""
    tokens = sum(new_tokens for new_tokens, _ in calls)
    if not tokens:
        return None
    most = max(new_tokens for new_tokens, _ in calls)
    declared = Range(new_tokens=(1, most), context=(0, _MOST_CONTEXT))
    return Line(base_s=0.0, per_token_s=sum(took_s for _, took_s in calls) / tokens, range=declared)


def _head_share(record: Record) -> float:
    """What the hints' moments within their passes leave for the head."""
    layers = record.setup.models.layers
    shares: list[float] = []
    for session in record.sessions:
        passes_s = {one.data["position"]: one.data["queue_s"] + one.data["pass_s"] for one in _of(session, "commit")}
        for one in _of(session, "hint"):
            pass_s = passes_s.get(one.data["position"], 0.0)
            if pass_s > 0.0:
                shares.append(1.0 - one.data["after_s"] / pass_s * layers / one.data["layer"])
    return min(_MOST_HEAD_SHARE, max(0.0, fmean(shares))) if shares else 0.0


def _setup(record: Record, trip_s: float) -> Setup | None:
    """How long connections took to make, in round trips."""
    took_s = [one.t_s - one.data["began_s"] for one in record.noted if one.kind == "connect"]
    return Setup(round_trips=fmean(took_s) / trip_s) if took_s and trip_s > 0.0 else None


def _outages(record: Record) -> tuple[Outage, ...]:
    """From each loss of the link to the next connection."""
    outages: list[Outage] = []
    lost_s: float | None = None
    start_s = min((session.began.began_s for session in record.sessions), default=0.0)
    for one in record.noted:
        if one.kind == "retry" and lost_s is None:
            lost_s = one.t_s
        elif one.kind == "connect" and lost_s is not None:
            if one.t_s > lost_s:
                outages.append(Outage(start_s=lost_s - start_s, duration_s=one.t_s - lost_s, cuts=True))
            lost_s = None
    return tuple(outages)


def _draft_steps(session: RecordedSession) -> Iterable[tuple[bool, int, float]]:
    """Of each draft step: whether it is the first, how many tokens it ran as ``PacedDrafter`` counts, its seconds."""
    cache, asked = _DraftCache(session), deque(one for one in session.asked if one.where == "edge")
    first = True
    for one in session.noted:
        if (one.where, one.kind) == ("edge", "commit"):
            cache.advance(one.data["tokens"])
        elif (one.where, one.kind) == ("edge", "draft"):
            nodes: list[Anchor] = []
            while asked and asked[0].t_s <= one.t_s:
                step = asked.popleft()
                anchor = Anchor(step.position, step.hash)
                nodes.append(anchor)
                cache.hang(anchor, [token for token, _ in step.guesses])
            yield first, cache.run(nodes, one.data["nodes"]), one.data["took_s"]
            first = False


class _DraftCache:
    """What the draft's device holds, by the rules of ``engines.paced.PacedDrafter``."""

    def __init__(self, session: RecordedSession) -> None:
        self._private = not session.prompt
        self._tip = ORIGIN.after(session.prompt)
        self._behind = session.began.prompt_tokens
        self._above: dict[Anchor, Anchor] = {}  # each node's parent
        self._cached: set[Anchor] = set()

    def hang(self, node: Anchor, tokens: Sequence[int]) -> None:
        """The draft guessed these below a node."""
        self._above.update((node.then(token), node) for token in tokens)

    def advance(self, tokens: Any) -> None:
        """The text grew by ``tokens``, or in a private record by so many."""
        if self._private:
            self._behind += 1
            return
        for token in tokens:
            self._tip = self._tip.then(token)
            self._behind += self._tip not in self._cached

    def run(self, nodes: Sequence[Anchor], count: int) -> int:
        """How many tokens a step over ``nodes`` runs; ``count`` of them, where they are not told."""
        fresh: set[Anchor] = set()
        for node in nodes:
            step: Anchor | None = node
            while step is not None and step.position > self._tip.position and step not in self._cached | fresh:
                fresh.add(step)
                step = self._above.get(step)
        ran = self._behind + (len(fresh) if nodes else max(0, count - 1))
        self._cached |= fresh
        self._behind = 0
        return max(1, ran)
