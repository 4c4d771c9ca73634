"""Where the time of a session went, from what its edge noted: edge, uplink, cloud and downlink as lanes.

The other end's doings are placed as ``observe.record.cloud_side`` says.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from foredraft.observe.record.cloud_side import placed
from foredraft.observe.record.frames import Noted

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


def timeline(noted: Sequence[Noted], round_trip_s: float) -> Timeline:
    """The lanes of one session, from its record and the link's round trip."""
    spans: list[Span] = []
    commits: list[Commit] = []
    verifying = _verified_between(noted)
    first_s = noted[0].t_s if noted else 0.0
    for one in placed(noted, round_trip_s / 2):
        at_s = one.t_s - first_s
        match one.where, one.kind:
            case "edge", "draft":
                began_s = one.data["began_s"]
                ahead = any(start_s <= began_s < end_s for start_s, end_s in verifying)
                spans.append(Span("edge", "ahead" if ahead else "draft", began_s - first_s, at_s))
            case "uplink", "Grow":
                spans.append(Span("uplink", "tokens", one.data["sent_s"] - first_s, at_s))
            case "downlink", "Hint":
                spans.append(Span("downlink", "hint", one.data["sent_s"] - first_s, at_s))
            case "downlink", "Commit":
                spans.append(Span("downlink", "commit", one.data["sent_s"] - first_s, at_s))
            case "cloud", "verdict":
                spans += _pass_spans(one, at_s)
            case "edge", "commit":
                commits.append(Commit(at_s, len(one.data["tokens"])))
    return Timeline(tuple(spans), tuple(commits))


def _pass_spans(verdict: Noted, left_s: float) -> Iterable[Span]:
    """What a commit tells of the cloud: its pass ended when the commit left."""
    began_s = left_s - verdict.data["pass_s"]
    prefill_s = verdict.data["prefill_s"]
    if prefill_s:
        queued_s = began_s - verdict.data["queue_s"]
        yield Span("cloud", "prefill", queued_s - prefill_s, queued_s)
    yield Span("cloud", "pass", began_s, left_s)


def _verified_between(noted: Sequence[Noted]) -> list[tuple[float, float]]:
    """From each first shipment after a commit to the next commit."""
    intervals: list[tuple[float, float]] = []
    shipped_s: float | None = None
    for one in noted:
        if (one.where, one.kind) == ("edge", "ship") and shipped_s is None:
            shipped_s = one.t_s
        elif (one.where, one.kind) == ("downlink", "Commit") and shipped_s is not None:
            intervals.append((shipped_s, one.t_s))
            shipped_s = None
    return intervals
