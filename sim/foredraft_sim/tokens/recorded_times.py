"""How long the calls of a live session took, one by one, and a pace that takes as long again.

What came around a call (queues, threads, event loops) is part of it: a replay has no other place for it.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final

from foredraft.engines.device import Work
from foredraft.engines.pace import Pace
from foredraft.observe.record.frames import Noted
from foredraft.observe.record.reading import Record, RecordedSession
from foredraft.profiles import Curve, DeviceProfile
from foredraft.profiles.compute import call_curve
from foredraft.protocol.anchor import ORIGIN, Anchor

_LOOP_S: Final = 1e-3
"""A cloud that began its next pass sooner did not wait for anything but its own loop."""


@dataclass(frozen=True, slots=True)
class Calls:
    """Durations of passes or draft steps by how many tokens they ran, in the order in which they ran.

    ``prefills``: tokens and seconds of each call for the prompt. ``shares``: which part of its pass was over
    when an exit spoke, by layer, as a mean.
    """

    taken_s: Mapping[int, Sequence[float]]
    prefills: Sequence[tuple[int, float]]
    shares: Mapping[int, float] = field(default_factory=dict)


class RecordedPace(Pace):
    """The k-th call of n tokens takes what the k-th such call in the record took, and then from the first again.

    So spread, tails and slow phases are those of the record. A number of tokens that never ran takes what the
    profile says of it, times what the next call of the nearest number differed from its mean.
    """

    def __init__(self, profile: DeviceProfile, kind: str, calls: Calls) -> None:
        """``kind``: of the calls, as in ``Work``; others are priced by the profile."""
        super().__init__(profile, None, "warn")
        self._kind = kind
        self._calls = calls
        self._left: dict[int, deque[float]] = {tokens: deque(taken_s) for tokens, taken_s in calls.taken_s.items()}

    def batch_s(self, works: Sequence[Work], idle_s: float = 0.0) -> float:
        """Seconds of a call; several in one batch were never recorded, and take what the profile says."""
        usual_s = super().batch_s(works)
        if len(works) > 1 or works[0].kind != self._kind or not self._left:
            return usual_s
        new_tokens = works[0].new_tokens
        nearest = min(self._left, key=lambda tokens: (abs(tokens - new_tokens), tokens))
        waiting = self._left[nearest]
        taken_s = waiting[0]
        waiting.rotate(-1)
        if nearest == new_tokens:
            return taken_s
        mean_s = fmean(waiting)
        return usual_s * taken_s / mean_s if mean_s > 0.0 else usual_s

    def _curve(self, kind: str, new_tokens: int) -> Curve:
        """Of more tokens than were ever run, too: what is known of prefill is seconds per token, without a base."""
        return super()._curve(kind, new_tokens) if kind == "prefill" else call_curve(self.profile)

    def share_after(self, layer: int, layers: int) -> float:
        """As recorded, where that exit spoke."""
        return self._calls.shares.get(layer) or super().share_after(layer, layers)


def target_calls(record: Record) -> Calls:
    """The passes of a live record."""
    taken_s: dict[int, list[float]] = defaultdict(list)
    prefills: list[tuple[int, float]] = []
    shares: dict[int, list[float]] = defaultdict(list)
    around_s = _around_passes_s(record)
    for session in record.sessions:
        uncached = session.began.prompt_tokens  # what the first pass finds
        lasted_s: dict[int, float] = {}
        for one, whole_s in _passes(session):
            data = one.data
            if data["prefill_s"] > 0.0 and uncached > 1:
                prefills.append((uncached - 1, data["prefill_s"]))
                uncached = 1
            took_s = data["pass_s"] + around_s if whole_s is None else whole_s
            lasted_s[data["position"]] = took_s
            taken_s[data["drafted"] + uncached].append(took_s)
            uncached = 1
        for one in of_edge(session, "hint"):
            if (took_s := lasted_s.get(one.data["position"], 0.0)) > 0.0:
                shares[one.data["layer"]].append(min(1.0, one.data["after_s"] / took_s))
    return Calls(taken_s, prefills, {layer: fmean(those) for layer, those in shares.items()})


def _around_passes_s(record: Record) -> float:
    """What comes around a pass, as a mean."""
    told = [(one, whole_s) for session in record.sessions for one, whole_s in _passes(session)]
    known_s = [whole_s - one.data["pass_s"] for one, whole_s in told if whole_s is not None]
    return max(0.0, fmean(known_s)) if known_s else 0.0


def _passes(session: RecordedSession) -> Iterator[tuple[Noted, float | None]]:
    """Each commit, and what its pass took with all that came around it, as far as the record tells.

    By the cloud's clock, since the last message that it heard: from the commit before, if nothing was heard
    since; from the message, if the cloud was waiting for it. Else by when commits reached the edge, where what
    the ways down differed in is part of it, and leaves the mean as it is.
    """
    before: Noted | None = None
    untold = not (of_edge(session, "draft") or tells_cloud_drafting(session))  # by a cloud that did not say it yet
    messages = [one for one in session.noted if (one.where, one.kind) == ("downlink", "Commit")]
    for message, one in zip(messages, of_edge(session, "commit"), strict=False):
        told, data = message.data, one.data
        heard_s, waited_s, pass_s = told["heard_s"], told["waited_s"], data["pass_s"]
        other_s = data["prefill_s"] + sum(_drafting_s(message))
        idle_s = waited_s if waited_s > _LOOP_S else 0.0
        whole_s: float | None = None
        if before is None and told["heard"] == 0:
            whole_s = heard_s - other_s
        elif before is not None and before.data["heard"] == told["heard"]:
            whole_s = heard_s - before.data["heard_s"] - idle_s - other_s
        elif pass_s <= heard_s - other_s <= waited_s + pass_s:
            whole_s = heard_s - other_s
        elif before is not None:
            whole_s = message.t_s - before.t_s - idle_s - other_s
        if untold and data["drafted"]:
            whole_s = data["queue_s"] + pass_s
        yield one, None if whole_s is None else max(0.0, whole_s)
        before = message


def _drafting_s(commit: Noted) -> list[float]:
    """Each draft step in the cloud before a commit."""
    return [step_us / 1e6 for step_us in commit.data.get("draft_us", ())]


def tells_cloud_drafting(session: RecordedSession) -> bool:
    """Whether a live session tells how long a draft model in the cloud took."""
    return any("draft_us" in one.data for one in session.noted)


def cloud_draft_calls(record: Record) -> Calls:
    """The draft steps in the cloud of a live record, the first of each text among them.

    How many tokens a step ran is worked out by the rules of ``engines.paced.PacedDrafter``, as for a chain: what was
    committed without having been a step's, and the edge's nodes above, come with the first step after a commit.
    """
    taken_s: dict[int, list[float]] = defaultdict(list)
    prefills: list[tuple[int, float]] = []
    for session in record.sessions:
        behind, steps_s, begun = session.began.prompt_tokens, list[float](), False
        for one in session.noted:
            if (one.where, one.kind) == ("edge", "open"):
                behind, begun = one.data["position"], False
            elif (one.where, one.kind) == ("downlink", "Commit"):
                steps_s = _drafting_s(one)
            elif (one.where, one.kind) == ("edge", "commit"):
                drafted, count = one.data["drafted"], _count(one.data["tokens"])
                if steps_s:
                    first = behind + max(0, drafted - len(steps_s))
                    taken_s[first].append(steps_s[0])
                    taken_s[1] += steps_s[1:]
                    if not begun:
                        prefills.append((first, steps_s[0]))
                    begun = True
                cached = min(one.data["accepted"], max(0, drafted - 1)) if steps_s else 0
                behind = count - cached + (0 if steps_s else behind)
    return Calls({tokens: those for tokens, those in taken_s.items() if those}, prefills)


def _count(tokens: Any) -> int:
    """How many; a private record says just that."""
    return len(tokens) if isinstance(tokens, list) else int(tokens)


def draft_calls(record: Record) -> Calls:
    """The draft steps of a live record, the first of each text among them."""
    taken_s: dict[int, list[float]] = defaultdict(list)
    prefills: list[tuple[int, float]] = []
    for session in record.sessions:
        for first, new_tokens, took_s in _draft_steps(session):
            taken_s[new_tokens].append(took_s)
            if first:
                prefills.append((new_tokens, took_s))
    return Calls(taken_s, prefills)


def of_edge(session: RecordedSession, kind: str) -> list[Noted]:
    """A session's events of a kind at the edge."""
    return [one for one in session.noted if (one.where, one.kind) == ("edge", kind)]


def _draft_steps(session: RecordedSession) -> Iterable[tuple[bool, int, float]]:
    """Of each draft step: whether it is the first, how many tokens it ran as ``PacedDrafter`` counts, its seconds.

    They count from whatever called for the step: the step before, a message, the link.
    """
    cache, asked = _DraftCache(session), deque(one for one in session.asked if one.where == "edge")
    called_s: float | None = None
    for one in session.noted:
        if (one.where, one.kind) == ("edge", "commit"):
            cache.advance(one.data["tokens"])
        elif (one.where, one.kind) == ("edge", "draft"):
            nodes: list[Anchor] = []
            while asked and asked[0].t_s <= one.t_s:
                step = asked.popleft()
                anchor = Anchor(step.position, step.hash)
                nodes.append(anchor)
                cache.attach(anchor, [token for token, _ in step.guesses])
            began_s, first = one.data["began_s"], called_s is None
            late_s = 0.0 if called_s is None else max(0.0, began_s - called_s)
            yield first, cache.run(nodes, one.data["nodes"]), late_s + one.data["took_s"]
            called_s = one.t_s
        if called_s is not None and one.where in ("edge", "downlink"):
            called_s = one.t_s


class _DraftCache:
    """What the draft's device holds, by the rules of ``engines.paced.PacedDrafter``."""

    def __init__(self, session: RecordedSession) -> None:
        self._private = not session.prompt
        self._tip = ORIGIN.after(session.prompt)
        self._behind = session.began.prompt_tokens
        self._above: dict[Anchor, Anchor] = {}  # each node's parent
        self._cached: set[Anchor] = set()

    def attach(self, node: Anchor, tokens: Sequence[int]) -> None:
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
