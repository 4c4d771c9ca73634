"""What the policies that grow best first share."""

import heapq

from foredraft.edge.state import EdgeState
from foredraft.protocol.tree import Node


def unexpanded(state: EdgeState, most: int, min_probability: float) -> list[tuple[float, Node]]:
    """The ``most`` likeliest nodes that the drafter was not asked about, with their probability, likeliest first."""
    deepest = state.position + state.useful_depth
    frontier = [
        (probability, -order, node)
        for order, (node, probability) in enumerate(state.path_probabilities)
        if probability >= min_probability and not node.expanded and node.position < deepest
    ]
    best = heapq.nlargest(most, frontier, key=lambda entry: entry[:2])
    return [(probability, node) for probability, _, node in best]


def unsent(state: EdgeState, min_probability: float) -> tuple[list[Node], int]:
    """The nodes likely enough to be sent, likeliest first, and how many were sent already."""
    likely = likeliest(state, len(state.path_probabilities), min_probability)
    return [node for node in likely if not node.sent], sum(node.sent for node, _ in state.path_probabilities)


def likeliest(state: EdgeState, most: int, min_probability: float) -> list[Node]:
    """The ``most`` likeliest nodes, sent or not, likeliest first, that are likely enough to be sent."""
    entries = [
        (-probability, order, node)
        for order, (node, probability) in enumerate(state.path_probabilities)
        if probability >= min_probability and node.parent is not None
    ]
    entries.sort(key=lambda entry: entry[:2])
    return [node for _, _, node in entries[:most]]
