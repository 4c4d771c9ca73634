"""``auto``: as ``ahead``, with everything it trades chosen from what the session has measured.

It begins as streaming from the cloud: the walker never waits. Meanwhile the edge drafts in the
shadow of the streamed commits, which teaches it the acceptance at no cost. The walker is told
to wait for a branch only where the tokens that it brings are worth more than the waiting.

Worth waiting for k draft steps: ``(tokens_k - 1) * token_s`` against ``round_trip + k * draft_step``
plus what the wider pass costs more than one alone.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from foredraft.core.estimates import Estimates
from foredraft.core.grower import Grower
from foredraft.core.policy import Orders, Step
from foredraft.core.reach import expected_tokens
from foredraft.core.tree import Node

MIN_SAMPLES = 6
MOST_STEPS = 8
SLACK = 1.25


@dataclass(frozen=True, slots=True)
class AutoPolicy:
    """Chooses pass width, shipping and patience to minimise the expected time per token.

    ``width``: guesses per expanded node; ``batch``: nodes expanded per draft step.
    """

    width: int = 3
    batch: int = 8
    min_reach: float = 0.02
    threshold: float = 0.1
    name: str = "auto"

    def orders(self, grower: Grower) -> Orders:
        """Stream; wait only for branches that are worth it."""
        estimates = grower.estimates
        nodes = pass_nodes(estimates, 32 if grower.ready is None else grower.ready.max_pass_nodes)
        steps = steps_worth_waiting(estimates, nodes)
        patience_s = 0.0
        if steps:
            wait_s = estimates.round_trip_s.mean + steps * estimates.draft_step_s.mean
            patience_s = _rounded(SLACK * wait_s + 2.0 * estimates.round_trip_s.deviation)
        return Orders(
            alone_until=grower.end,
            patience_s=patience_s,
            max_branches=nodes,
            max_nodes=nodes,
            exits=() if grower.ready is None else grower.ready.exits,
            threshold=self.threshold,
        )

    def step(self, grower: Grower) -> Step | None:
        """Expand the likeliest nodes that were not expanded yet."""
        deepest = grower.position + grower.useful_depth
        frontier = [
            (reach, -order, node)
            for order, (node, reach) in enumerate(grower.reaches)
            if not node.expanded and reach >= self.min_reach and node.anchor.position < deepest
        ]
        best = heapq.nlargest(self.batch, frontier, key=lambda entry: entry[:2])
        return Step(tuple(node for _, _, node in best), self.width) if best else None

    def ship(self, grower: Grower) -> Sequence[Node]:
        """What is likely enough and not there yet, likeliest first."""
        estimates = grower.estimates
        nodes = pass_nodes(estimates, 32 if grower.ready is None else grower.ready.max_pass_nodes)
        room = 3 * nodes
        wanted: list[tuple[float, int, Node]] = []
        for order, (node, reach) in enumerate(grower.reaches):
            if node.sent:
                room -= 1
            elif node.parent is not None and reach >= self.min_reach:
                wanted.append((-reach, order, node))
        steps = steps_worth_waiting(estimates, nodes)
        if steps > 1 and room == 3 * nodes and _depth(grower) < min(steps, grower.useful_depth):
            return ()
        wanted.sort(key=lambda entry: entry[:2])
        return [node for _, _, node in wanted[: max(0, room)]]


def pass_nodes(estimates: Estimates, most: int) -> int:
    """How many draft nodes a pass should take: twice as many while that brings more than it costs."""
    nodes = 4
    ranks = estimates.rank_chances()
    while nodes * 2 <= most:
        brings = expected_tokens(ranks, nodes * 2, MOST_STEPS) - expected_tokens(ranks, nodes, MOST_STEPS)
        if estimates.pass_s(nodes * 2) - estimates.pass_s(nodes) > brings * estimates.token_s.mean:
            break
        nodes *= 2
    return nodes


def steps_worth_waiting(estimates: Estimates, nodes: int) -> int:
    """For how many draft steps the walker should wait when nothing hangs below the tip; 0: not at all."""
    guessed = estimates.ranks[0].samples if estimates.ranks else 0
    if min(guessed, estimates.round_trip_s.samples, estimates.draft_step_s.samples) < MIN_SAMPLES:
        return 0
    ranks = estimates.rank_chances()
    best_s, best = 0.0, 0
    for steps in range(1, MOST_STEPS + 1):
        tokens = expected_tokens(ranks, nodes, steps)
        wait_s = estimates.round_trip_s.mean + steps * estimates.draft_step_s.mean
        wider_s = estimates.pass_s(nodes) - estimates.pass_s(0)
        gain_s = (tokens - 1.0) * estimates.token_s.mean - wait_s - wider_s
        if gain_s > best_s:
            best_s, best = gain_s, steps
    return best


def _depth(grower: Grower) -> int:
    """How deep the tree is."""
    return max(node.anchor.position for node, _ in grower.reaches) - grower.position


def _rounded(seconds: float) -> float:
    """To two digits, so that new orders go out only when they matter."""
    return float(f"{seconds:.1g}")
