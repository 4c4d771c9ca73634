"""``auto``: as ``ahead``, with everything it trades chosen from what the session has measured.

It begins as streaming from the cloud: the cloud never waits. Meanwhile the edge drafts in the
shadow of the streamed commits, which teaches it the acceptance at no cost. The cloud is told
to wait for a branch only where the tokens that it brings are worth more than the waiting, and
its own harm ledger (``cloud.ledger``) lets it spend no more than speculation has gained.

All choices weigh one thing: a committed token is worth what a token takes at present, plus its
share of the cloud's seconds at the user's price (``cost_weight``). Only where a deadline is in
danger do they weigh another: how probable it is that the text is complete by then (``in_time``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from foredraft.edge.estimates import UNSEEN, Snapshot
from foredraft.edge.path_probability import expected_tokens
from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.errors import ConfigError
from foredraft.policies.frontier import likeliest, unexpanded
from foredraft.policies.hints import probing, worth_asking
from foredraft.policies.in_time import SURE, Left, Next, sureness, surest
from foredraft.policies.parameters import Parameter
from foredraft.protocol.averages import WIDTHS, rounded
from foredraft.protocol.tree import Node

MIN_SAMPLES = 6
"""Nothing is waited for before round trip, draft step and acceptance were each seen so often."""

FIRST_NODES = 3
SECOND_NODES = 7
"""... and until then, and until it is known what passes of so many draft nodes take, they have so many; the second
number where the first cost next to nothing, and more where it is known that more do."""

MOST_STEPS = 8
DONE = 0.4
"""Of the first step that is waited for: the edge never stops drafting, so it is in the middle of one."""

SLACK = 1.25
PASSES_AHEAD = 2
"""So many passes' worth of nodes are worth sending, besides those of the passes that a round trip takes."""

LEAST_TOKENS = 1.1
"""Tokens per pass below which speculation is of no use: then hints are not asked for (they lengthen passes), and
drafting is a probe of 8 in 32 tokens, to see whether the world has changed."""

SURE_PASSES = 24
"""... but not before so many passes: six guesses may all be wrong by chance, and drafting costs no time."""

MIN_LENGTHS = 3
"""Before so many texts have ended by themselves, one is thought to have as many tokens as it may."""

_KNOWN = 512  # choices that are remembered, a kilobyte each: with 4,096, no more were found again in a live edge


@dataclass(frozen=True, slots=True)
class Choice:
    """What ``auto`` does at present.

    ``nodes``: draft nodes in one pass; 0: none pay. ``steps``: for how many draft steps the cloud
    waits when nothing is attached below the tip; 0: it decodes alone. ``patience_s``: the same in seconds.
    ``least``: it waits as long for so many nodes, before it verifies fewer. ``useful``: whether
    speculation brings anything.
    """

    nodes: int
    steps: int
    patience_s: float
    least: int
    useful: bool


@dataclass(frozen=True, slots=True)
class AutoPolicy:
    """Chooses pass width, shipping and patience to minimise expected time, and cost, per token.

    ``cost_weight``: the price of a second of the target's or the draft's device, in seconds of
    waiting. ``width``: guesses per expanded node; ``batch``: nodes expanded per draft step.
    ``min_probability``: least probability that the walk gets to a node worth drafting or sending.
    ``threshold``: least probability that a hint is right.
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("cost_weight", 0.0, 8.0, step=0.25),
        Parameter("width", 1, 8),
        Parameter("batch", 1, 32, log=True),
        Parameter("min_probability", 0.001, 0.3, log=True),
        Parameter("threshold", 0.0, 1.0, step=0.05),
    )

    cost_weight: float = 0.0
    width: int = 3
    batch: int = 8
    min_probability: float = 0.0075
    threshold: float = 0.1
    name: str = "auto"

    def __post_init__(self) -> None:
        if not 0.0 <= self.cost_weight < float("inf"):
            raise ConfigError(f"cost_weight must be 0 or more, not {self.cost_weight!r}")
        if self.width < 1 or self.batch < 1:
            raise ConfigError(f"width and batch must be 1 or more, not {self.width!r} and {self.batch!r}")

    def choice(self, state: EdgeState) -> Choice:
        """What to do, by what was measured so far."""
        seen, most = state.estimates.snapshot(), _most_nodes(state)
        if state.due_s == math.inf:
            return choose(seen, most, self.cost_weight)
        return choose_in_time(seen, most, self.cost_weight, _left(state))

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Stream; wait only for branches that are worth it."""
        choice = self.choice(state)
        exits, threshold = worth_asking(state, self.threshold) if choice.useful else ((), self.threshold)
        return VerifyParams(
            alone_until=state.end,
            patience_s=choice.patience_s,
            min_nodes=choice.least,
            max_branches=max(1, choice.nodes),
            max_nodes=max(1, choice.nodes),
            exits=exits,
            threshold=threshold,
        )

    def step(self, state: EdgeState) -> Step | None:
        """Expand the likeliest nodes that were not expanded yet, where that is worth a draft step."""
        if self._resting(state):
            return None
        best = unexpanded(state, self.batch, self.min_probability)
        if not best or (self.cost_weight and not self._worth_drafting(state, sum(each for each, _ in best))):
            return None
        return Step(tuple(node for _, node in best), self.width)

    def _resting(self, state: EdgeState) -> bool:
        """Whether the edge leaves it to the cloud for now."""
        useful = self.choice(state).useful or state.estimates.tokens.samples < SURE_PASSES
        return not useful and not probing(state)

    def _worth_drafting(self, state: EdgeState, probability: float) -> bool:
        """Whether the tokens that a draft step may bring are worth its price."""
        seen = state.estimates.snapshot()
        right = sum(seen.ranks[: self.width]) if seen.samples >= MIN_SAMPLES else 1.0
        return probability * right * token_worth_s(seen, self.cost_weight) >= self.cost_weight * seen.draft_step_s

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """What is likely enough and not there yet, likeliest first."""
        if self._resting(state):
            return ()
        choice = self.choice(state)
        best = likeliest(state, most_at_cloud(state.estimates.snapshot(), choice.nodes), self.min_probability)
        wanted = [node for node in best if not node.sent]
        shallow = _depth(state) < min(choice.steps, state.useful_depth)
        if len(wanted) == len(best) and choice.steps > 1 and shallow and unexpanded(state, 1, self.min_probability):
            return ()  # the cloud waits for a chain of so many, not for its first token
        return wanted


def most_at_cloud(seen: Snapshot, nodes: int) -> int:
    """How many nodes are worth sending, where a pass takes so many: the likeliest, whatever was sent before them."""
    passes = seen.round_trip_s / seen.passes_s[0] if seen.passes_s[0] else 0.0
    return int((PASSES_AHEAD + passes) * nodes)


def token_worth_s(seen: Snapshot, cost_weight: float) -> float:
    """What one more committed token saves: the time that it takes, and the pass that would make it, at its price."""
    return seen.token_s + cost_weight * seen.passes_s[0]


@lru_cache(maxsize=_KNOWN)
def choose(seen: Snapshot, most: int, cost_weight: float) -> Choice:
    """The choice by these estimates; ``most``: draft nodes that the target takes in one pass."""
    nodes = pass_nodes(seen, most, cost_weight)
    steps = steps_worth_waiting(seen, nodes, cost_weight)
    if not steps:
        return Choice(nodes, 0, 0.0, 1, seen.tokens >= LEAST_TOKENS)
    return _waiting(seen, nodes, steps, cost_weight)


@lru_cache(maxsize=_KNOWN)
def choose_in_time(seen: Snapshot, most: int, cost_weight: float, left: Left) -> Choice:
    """The same under a deadline: as ever where it will be kept, else what makes it most probable, at any price."""
    usual = choose(seen, most, cost_weight)
    if seen.samples < MIN_SAMPLES or sureness(seen, Next(usual.nodes, usual.steps), left) >= SURE:
        return usual
    widest = pass_nodes(seen, most, 0.0)
    nodes, steps = surest(seen, (width for width in WIDTHS if width <= widest), MOST_STEPS, left)
    if not steps:
        return Choice(usual.nodes, 0, 0.0, 1, usual.useful)
    return _waiting(seen, nodes, steps, 0.0)


def _waiting(seen: Snapshot, nodes: int, steps: int, cost_weight: float) -> Choice:
    """To wait for so many steps."""
    wait_s = seen.round_trip_s + steps * seen.draft_step_s
    patience_s = SLACK * wait_s + 2.0 * seen.round_trip_spread_s
    return Choice(nodes, steps, rounded_up(patience_s), least_worth_a_pass(seen, nodes, cost_weight), True)


def pass_nodes(seen: Snapshot, most: int, cost_weight: float) -> int:
    """How many draft nodes a pass should take: the next width while that brings more than it costs.

    Only one width beyond those that enough is known of is tried at a time.
    """
    if seen.samples < MIN_SAMPLES or not seen.passes_s[0] or seen.widest < FIRST_NODES:
        return min(most, first_nodes(seen))
    nodes = 0
    worth_s = token_worth_s(seen, cost_weight)
    for wider in WIDTHS[1:]:
        if wider > most or nodes > seen.widest:
            break
        brings = expected_tokens(seen.ranks, wider, MOST_STEPS) - expected_tokens(seen.ranks, nodes, MOST_STEPS)
        costs_s = (1.0 + cost_weight) * (seen.pass_s(wider) - seen.pass_s(nodes))
        if costs_s > brings * worth_s:
            break
        nodes = wider
    return nodes


def first_nodes(seen: Snapshot) -> int:
    """How many draft nodes a pass has before it is known what they bring: those that cost next to nothing."""
    most_s = UNSEEN * seen.passes_s[0]
    cheap = max(
        (nodes for nodes, pass_s in zip(WIDTHS, seen.passes_s, strict=True) if 0.0 < pass_s <= most_s), default=0
    )
    return SECOND_NODES if cheap == seen.widest == FIRST_NODES else max(cheap, FIRST_NODES)


def steps_worth_waiting(seen: Snapshot, nodes: int, cost_weight: float) -> int:
    """For how many draft steps the cloud should wait when nothing is attached below the tip; 0: not at all."""
    if seen.samples < MIN_SAMPLES:
        return 0
    worth_s = token_worth_s(seen, cost_weight)
    wider_s = seen.pass_s(nodes) - seen.pass_s(0)
    best_s, best = 0.0, 0
    for steps in range(1, MOST_STEPS + 1):
        tokens = expected_tokens(seen.ranks, nodes, steps)
        wait_s = seen.round_trip_s + (steps - DONE) * seen.draft_step_s
        costs_s = wait_s + wider_s + cost_weight * (steps * seen.draft_step_s + wider_s)
        gain_s = (tokens - 1.0) * worth_s - costs_s
        if gain_s > best_s:
            best_s, best = gain_s, steps
    return best


def least_worth_a_pass(seen: Snapshot, nodes: int, cost_weight: float) -> int:
    """Fewer draft nodes than this are worth a round trip of waiting for the rest.

    Never more than passes have had of late, so that a drafter with few ideas is not waited for.
    """
    worth_s = token_worth_s(seen, cost_weight)
    most = min(nodes, max(1, int(seen.drafted)))
    full = expected_tokens(seen.ranks, nodes, MOST_STEPS)
    for least in range(1, most):
        more_s = (full - expected_tokens(seen.ranks, least, MOST_STEPS)) * worth_s
        wider_s = (1.0 + cost_weight) * (seen.pass_s(nodes) - seen.pass_s(least))
        if more_s <= seen.round_trip_s + seen.round_trip_spread_s + seen.draft_step_s + wider_s:
            return least
    return most


def rounded_up(seconds: float) -> float:
    """To one digit or one and a half (1, 1.5, 2, ... 9.5), so that new orders go out only when they matter."""
    decade = 10.0 ** math.floor(math.log10(seconds)) if seconds > 0.0 else 1.0
    return math.ceil(2.0 * seconds / decade - 1e-9) / 2.0 * decade


def _left(state: EdgeState) -> Left:
    """What is left of the text, by how long texts were that ended by themselves, and of its time; to two digits."""
    tokens, length = state.end - state.position, state.estimates.length
    if length.samples >= MIN_LENGTHS:
        tokens = min(tokens, max(1, round(length.mean) - (state.position - state.start)))
    return Left(tokens, rounded(state.left_s))


def _most_nodes(state: EdgeState) -> int:
    return WIDTHS[-1] if state.ready is None else state.ready.max_pass_nodes


def _depth(state: EdgeState) -> int:
    """How deep the tree is."""
    return max(node.position for node, _ in state.path_probabilities) - state.position
