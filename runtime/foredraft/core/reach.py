"""How probable it is that the walk gets to a node."""

from collections.abc import Mapping

from foredraft.core.tree import Node


def reaches(root: Node, told: Mapping[Node, tuple[Node, float]]) -> list[tuple[Node, float]]:
    """Every node from ``root`` down, parents first, with the probability that the walk gets there.

    A node's own probability multiplies that of its parent. ``told`` maps a node to the child
    that a hint favours, and how sure the hint is of this step; the favourite's siblings share
    what that leaves, in proportion to what the draft gave them.
    """
    found: list[tuple[Node, float]] = [(root, 1.0)]
    for node, reach in found:
        favourite = told.get(node)
        if favourite is None:
            for child in node.children.values():
                found.append((child, reach * child.probability))
            continue
        heir, sure = favourite
        rest = (1.0 - sure) / max(1.0 - heir.probability, 1e-3)
        for child in node.children.values():
            probability = max(child.probability, sure) if child is heir else child.probability * min(rest, 1.0)
            found.append((child, reach * probability))
    return found
