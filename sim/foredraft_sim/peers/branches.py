"""What peers share that draft, during verification, for verdicts that are likely."""

from collections.abc import Callable, Iterable, Sequence

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step
from foredraft.protocol.tree import Node

BATCH = 8
"""Branches that one draft step makes longer."""


def chain_then_branches(
    state: EdgeState, gamma: int, width: int, outcomes: int, verdicts: Callable[[Sequence[Node]], Iterable[Node]]
) -> Step | None:
    """Before a chain is sent it grows to ``gamma`` tokens, each with ``width`` guesses; during verification branches.

    They are for what comes below the chain's tip, ``outcomes`` guesses, and then below the ``verdicts`` on what was
    sent, best first.
    """
    if not state.verifying:
        return _wide_chain(state, gamma, width)
    sent = _sent_chain(state)
    if sent and not sent[-1].expanded and sent[-1].position < state.position + state.useful_depth:
        return Step((sent[-1],), outcomes)  # everything is accepted: what comes then?
    return _longer(state, verdicts(sent), gamma)


def _wide_chain(state: EdgeState, gamma: int, width: int) -> Step | None:
    """The step that makes the chain below the tip longer, each of its nodes with ``width`` guesses below it."""
    chain = state.likeliest()
    tip = chain[-1] if chain else state.root
    return None if len(chain) >= min(gamma, state.deepest) or tip.barren else Step((tip,), width)


def _sent_chain(state: EdgeState) -> list[Node]:
    """What is being verified: the nodes from just below the root down."""
    chain: list[Node] = []
    node: Node | None = state.root
    while node is not None:
        node = next((child for child in node.children if child.sent), None)
        if node is not None:
            chain.append(node)
    return chain


def others(node: Node) -> list[Node]:
    """What might come below a node in the place of what was sent, likeliest first: other verdicts at this place."""
    return sorted((child for child in node.children if not child.sent), key=lambda child: -child.probability)


def _longer(state: EdgeState, branches: Iterable[Node], length: int) -> Step | None:
    """The step that makes the first of these branches longer that are shorter than ``length``, by one token each."""
    deepest = state.position + state.useful_depth
    tips = []
    for node in branches:
        chain = node.likeliest()
        tip = chain[-1] if chain else node
        if len(chain) < length and tip.position < deepest and not (tip.barren or tip.expanded):
            tips.append(tip)
    return Step(tuple(tips[:BATCH]), 1) if tips else None
