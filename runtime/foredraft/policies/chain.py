"""What the policies that draft one chain at a time share."""

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step
from foredraft.protocol.tree import Node


def extend(node: Node, depth: int) -> Step | None:
    """The step that makes the chain below ``node`` longer, until it has ``depth`` nodes."""
    chain = node.likeliest()
    tip = chain[-1] if chain else node
    return None if len(chain) >= depth or tip.barren else Step((tip,))


def extend_root(state: EdgeState, gamma: int) -> Step | None:
    """The same below the root, until the chain has ``gamma`` nodes or as many as it may."""
    return extend(state.tree.root, min(gamma, state.deepest))


def finished_chain(state: EdgeState, gamma: int) -> list[Node]:
    """The end of the chain below the root, once it cannot or need not grow longer; else nothing."""
    chain = state.likeliest()
    length, depth = len(chain), state.deepest
    if length < gamma and length < depth:
        return [chain[-1]] if chain and chain[-1].barren else []
    return [chain[min(gamma, depth) - 1]] if depth > 0 else []
