"""Devices and link as a live session has met them: profiles of the durations in its record.

A curve goes through the mean duration at each number of tokens that was run, so that a replay of the same
work takes the same time in all; between them it is interpolated, and beyond them it rises as on the whole. For what
a machine can do in general, measure it: ``foredraft profile``.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Final

from foredraft.errors import RecordError
from foredraft.observe.record.reading import Record
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
from foredraft.protocol.messages import MAX_MESSAGE_BYTES
from foredraft_sim.tokens.recorded_times import Calls, draft_calls, target_calls

NAME: Final = "recorded"
_MOST_CONTEXT: Final = 1 << 40
_MOST_HEAD_SHARE: Final = 0.9
_ENOUGH: Final = 5

Times = Mapping[int, Sequence[float]]
"""Durations by the number of tokens that were run."""


def measured_target(record: Record, calls: Calls | None = None) -> TargetProfile:
    """The target as its commits tell: passes, what comes around them, prefill, and how deep the exits are.

    Raises RecordError where no commit is recorded.
    """
    calls = calls or target_calls(record)
    if not calls.taken_s:
        raise RecordError(f"{record.path}: no commit in it tells of the cloud's passes; name a profile with --cloud")
    models = record.setup.models
    return TargetProfile(
        name=NAME,
        title="the target as recorded",
        kind="target",
        model=Model(name=models.model_digest, layers=models.layers, head_share=_head_share(calls, models.layers)),
        target_pass=_curve(calls.taken_s, 1),
        prefill=_line(calls.prefills),
    )


def measured_draft(record: Record, calls: Calls | None = None, *, needed: bool) -> DraftProfile:
    """The draft as its steps took. Raises RecordError where there were none, and one is ``needed``."""
    calls, models = calls or draft_calls(record), record.setup.models
    if not calls.taken_s:
        if needed:
            raise RecordError(
                f"{record.path}: the edge drafted nothing in it ({record.setup.policy}), so it does not tell how long "
                "that takes; name a profile with --edge"
            )
        calls = Calls({1: [0.0]}, ())  # of which nobody will hear
    return _draft_profile("the draft as recorded", models.draft, models.draft_nodes, calls)


def measured_cloud_draft(record: Record, calls: Calls) -> DraftProfile:
    """The draft in the cloud as its steps took; there are some in ``calls``."""
    return _draft_profile("the draft in the cloud as recorded", "", record.setup.models.draft_nodes, calls)


def _draft_profile(title: str, model: str, nodes: int, calls: Calls) -> DraftProfile:
    return DraftProfile(
        name=NAME,
        title=title,
        kind="draft",
        model=Model(name=model, layers=1),
        draft_step=_curve(calls.taken_s, nodes),
        prefill=_line(calls.prefills),
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


def _curve(times_s: Times, least_most: int) -> Grid:
    axis = sorted(times_s)
    declared = Range(new_tokens=(1, max(least_most, axis[-1])), context=(0, _MOST_CONTEXT))
    means_s = [fmean(times_s[new_tokens]) for new_tokens in axis]
    points = ((*means_s, means_s[-1] + _rise_s(times_s)),)
    return Grid(new_tokens=(*axis, axis[-1] + 1), seconds_s=(points,), range=declared)


def _rise_s(times_s: Times) -> float:
    """What a token more takes, between the smallest and the largest number that ran often enough to tell."""
    axis = [new_tokens for new_tokens in sorted(times_s) if len(times_s[new_tokens]) >= _ENOUGH]
    if len(axis) < 2:
        return 0.0
    first, last = axis[0], axis[-1]
    return max(0.0, (fmean(times_s[last]) - fmean(times_s[first])) / (last - first))


def _line(calls: Sequence[tuple[int, float]]) -> Line | None:
    """So many seconds per token."""
    tokens = sum(new_tokens for new_tokens, _ in calls)
    if not tokens:
        return None
    most = max(new_tokens for new_tokens, _ in calls)
    declared = Range(new_tokens=(1, most), context=(0, _MOST_CONTEXT))
    return Line(base_s=0.0, per_token_s=sum(took_s for _, took_s in calls) / tokens, range=declared)


def _head_share(calls: Calls, layers: int) -> float:
    """What the exits' moments within their passes leave for the head."""
    shares = [1.0 - share * layers / layer for layer, share in calls.shares.items()]
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
