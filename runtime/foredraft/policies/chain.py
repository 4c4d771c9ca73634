"""What the policies that draft one chain at a time share."""

from foredraft.core.grower import Grower
from foredraft.core.policy import Step
from foredraft.core.tree import Node


def depth_allowed(grower: Grower, gamma: int) -> int:
    """How long a chain below the root may be: gamma, or what the cloud and the text's end leave."""
    return min(gamma, grower.deepest)


def extend(node: Node, depth: int) -> Step | None:
    """The step that makes the chain below ``node`` longer, until it has ``depth`` nodes."""
    chain = node.likeliest()
    tip = chain[-1] if chain else node
    return None if len(chain) >= depth or tip.barren else Step((tip,))


def finished_chain(grower: Grower, gamma: int) -> list[Node]:
    """The end of the chain below the root, once it cannot or need not grow longer; else nothing."""
    depth = min(gamma, grower.deepest)
    chain = grower.tree.root.likeliest()
    if len(chain) >= depth > 0:
        return [chain[depth - 1]]
    return [chain[-1]] if chain and depth > 0 and chain[-1].barren else []
