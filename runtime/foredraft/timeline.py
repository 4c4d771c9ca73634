"""Where the time of a session went, from what its edge saw: edge, uplink, cloud and downlink as lanes.

Only the edge's clock is used, since clocks of two machines must not be subtracted. What the cloud
did is placed by the durations that its commits carry and by half of the round trip before a
message arrived; so the two directions of the link are taken to be alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from foredraft.core.events import Event

Lane = Literal["edge", "uplink", "cloud", "downlink"]
Kind = Literal["draft", "ahead", "tokens", "prefill", "pass", "hint", "commit"]

LANES: tuple[Lane, ...] = ("edge", "uplink", "cloud", "downlink")


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time in a lane. ``ahead`` is drafting while an earlier draft is verified."""

    lane: Lane
    kind: Kind
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Commit:
    """Tokens that became text at the edge."""

    at_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """One session; seconds since its first event."""

    spans: tuple[Span, ...]
    commits: tuple[Commit, ...]

    @property
    def end_s(self) -> float:
        """When the last commit came."""
        return self.commits[-1].at_s if self.commits else 0.0

    def tokens_between(self, start_s: float, end_s: float) -> int:
        """Tokens that became text after ``start_s`` and no later than ``end_s``."""
        return sum(commit.tokens for commit in self.commits if start_s < commit.at_s <= end_s)

    def typical_start_s(self, width_s: float) -> float:
        """A commit after which a window of this width has the session's mean pace, as nearly as any has.

        The first tokens are left out: they pay for the prompt.
        """
        later = self.commits[1:]
        starts = [commit.at_s for commit in later if commit.at_s + width_s <= self.end_s]
        if not starts:
            return self.commits[0].at_s if self.commits else 0.0
        pace = sum(commit.tokens for commit in later) / (self.end_s - self.commits[0].at_s)
        return min(starts, key=lambda start_s: abs(self.tokens_between(start_s, start_s + width_s) - pace * width_s))


def timeline(events: Sequence[Event], round_trip_s: float) -> Timeline:
    """The lanes of one session, from the events of its edge and the link's round trip."""
    spans: list[Span] = []
    commits: list[Commit] = []
    verifying = _verified_between(events)
    first_s = events[0].t_s if events else 0.0
    for event in events:
        at_s = event.t_s - first_s
        if event.kind == "draft":
            began_s = _number(event, "began_s")
            ahead = any(start_s <= began_s < end_s for start_s, end_s in verifying)
            spans.append(Span("edge", "ahead" if ahead else "draft", began_s - first_s, at_s))
        elif event.kind == "ship":
            spans.append(Span("uplink", "tokens", at_s, at_s + round_trip_s / 2))
        elif event.kind == "hint":
            spans.append(Span("downlink", "hint", at_s - round_trip_s / 2, at_s))
        elif event.kind == "commit":
            spans += _commit_spans(event, at_s, round_trip_s / 2)
            tokens = event.data["tokens"]
            commits.append(Commit(at_s, len(tokens) if isinstance(tokens, list) else 0))
    return Timeline(tuple(spans), tuple(commits))


def _commit_spans(event: Event, at_s: float, one_way_s: float) -> Iterable[Span]:
    """What a commit tells of the cloud: its pass ended when the commit left."""
    left_s = at_s - one_way_s
    began_s = left_s - _number(event, "pass_s")
    prefill_s = _number(event, "prefill_s")
    if prefill_s:
        queued_s = began_s - _number(event, "queue_s")
        yield Span("cloud", "prefill", queued_s - prefill_s, queued_s)
    yield Span("cloud", "pass", began_s, left_s)
    yield Span("downlink", "commit", left_s, at_s)


def _verified_between(events: Sequence[Event]) -> list[tuple[float, float]]:
    """From each first shipment after a commit to the next commit."""
    intervals: list[tuple[float, float]] = []
    shipped_s: float | None = None
    for event in events:
        if event.kind == "ship" and shipped_s is None:
            shipped_s = event.t_s
        elif event.kind == "commit" and shipped_s is not None:
            intervals.append((shipped_s, event.t_s))
            shipped_s = None
    return intervals


def _number(event: Event, name: str) -> float:
    value = event.data[name]
    return float(value) if isinstance(value, int | float) else 0.0
