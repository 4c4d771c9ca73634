"""What the policies that grow best first share."""

import heapq

from foredraft.edge.state import Grower
from foredraft.protocol.tree import Node


def unexpanded(grower: Grower, most: int, min_reach: float) -> list[tuple[float, Node]]:
    """The ``most`` likeliest nodes that the drafter was not asked about, with their reach, likeliest first."""
    deepest = grower.position + grower.useful_depth
    frontier = [
        (reach, -order, node)
        for order, (node, reach) in enumerate(grower.reaches)
        if reach >= min_reach and not node.expanded and node.position < deepest
    ]
    best = heapq.nlargest(most, frontier, key=lambda entry: entry[:2])
    return [(reach, node) for reach, _, node in best]


def unsent(grower: Grower, min_reach: float) -> tuple[list[Node], int]:
    """The nodes likely enough to be sent, likeliest first, and how many were sent already."""
    sent = 0
    wanted: list[tuple[float, int, Node]] = []
    for order, (node, reach) in enumerate(grower.reaches):
        if node.sent:
            sent += 1
        elif reach >= min_reach and node.parent is not None:
            wanted.append((-reach, order, node))
    wanted.sort(key=lambda entry: entry[:2])
    return [node for _, _, node in wanted], sent
