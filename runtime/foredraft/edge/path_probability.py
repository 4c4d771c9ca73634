"""How probable it is that the walk gets to a node."""

import heapq
from collections.abc import Mapping
from functools import lru_cache

from foredraft.protocol.tree import Node


def path_probabilities(root: Node, hinted_steps: Mapping[Node, tuple[Node, float]]) -> list[tuple[Node, float]]:
    """Every node from ``root`` down, parents first, with the probability that the walk gets there.

    A node's own probability multiplies that of its parent. ``hinted_steps`` maps a node to the child
    that a hint favours, and how sure the hint is of this step; the favourite's siblings share
    what that leaves, in proportion to what the draft gave them.
    """
    found: list[tuple[Node, float]] = [(root, 1.0)]
    for node, path_probability in found:
        favourite = hinted_steps.get(node)
        if favourite is None:
            for child in node.children:
                found.append((child, path_probability * child.probability))
            continue
        heir, sure = favourite
        rest = (1.0 - sure) / max(1.0 - heir.probability, 1e-3)
        for child in node.children:
            probability = max(child.probability, sure) if child is heir else child.probability * min(rest, 1.0)
            found.append((child, path_probability * probability))
    return found


def expected_tokens(ranks: tuple[float, ...], nodes: int, depth: int) -> float:
    """Tokens that a pass over the best tree brings on average, the target's own token included (``token_moments``)."""
    return token_moments(ranks, nodes, depth)[0]


@lru_cache(maxsize=4096)
def token_moments(ranks: tuple[float, ...], nodes: int, depth: int) -> tuple[float, float]:
    """Mean and variance of the tokens that a pass over the best tree brings, the target's own token included.

    ``ranks[r]``: how probable it is that the drafter's choice number r + 1 is right, the same at
    every node. The tree has the ``nodes`` likeliest nodes down to ``depth``. Growing best first
    is optimal, because a node is never likelier than its parent. A walk of d draft tokens meets each level down to d,
    and d squared is the sum of 2 l - 1 over those levels l.
    """
    tokens, squares = 1.0, 0.0
    frontier = [(-rank, 1) for rank in ranks if rank > 0.0] if depth else []
    heapq.heapify(frontier)
    for _ in range(nodes):
        if not frontier:
            break
        path_probability, level = heapq.heappop(frontier)
        tokens -= path_probability
        squares -= (2 * level - 1) * path_probability
        if level < depth:
            for rank in ranks:
                heapq.heappush(frontier, (path_probability * rank, level + 1))
    return tokens, max(0.0, squares - (tokens - 1.0) ** 2)
