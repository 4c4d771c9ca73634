"""A draft that keeps to the grammar of its text, around any drafter.

What the grammar forbids is left out of its guesses, since the target will not say it either; what the grammar forces
is guessed without asking it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from foredraft.errors import GrammarError
from foredraft.protocol.around import DrafterAround
from foredraft.protocol.ports import Drafter, Grammar, Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node
from foredraft.text.grammar import allows, only

log = logging.getLogger("foredraft.edge")

CANDIDATES: Final = 16
"""Guesses asked of the draft at least, of which some may be forbidden."""


class ConstrainedDrafter(DrafterAround):
    """Around any drafter. ``begin_grammar``: makes the grammar before any token, in a thread.

    ``start``: says where the generated text begins, once it begins. A grammar that cannot be made or followed is left
    alone: the cloud says what is wrong with it.
    """

    def __init__(self, inner: Drafter, begin_grammar: Callable[[], Grammar], start: Callable[[], int]) -> None:
        super().__init__(inner)
        self._begin_grammar, self._start = begin_grammar, start
        self._grammar: Grammar | None = None

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A text begins, or begins anew."""
        try:
            self._grammar = await asyncio.to_thread(self._begin_grammar)
            self._grammar.follow(tokens[self._start() :])
        except GrammarError as error:
            self._give_up(error)
        await super().begin(tokens, sampling)

    def _give_up(self, error: GrammarError) -> None:
        log.warning("drafting without the grammar: %s", error)
        self._grammar = None

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """The inner drafter's guesses that are allowed; what is forced without asking it."""
        masks = self._masks(nodes)
        if masks is None:
            return await super().draft(nodes, width)
        forced = [only(mask) for mask in masks]
        asked = [node for node, token in zip(nodes, forced, strict=True) if token is None]
        said = iter(await super().draft(asked, max(width, CANDIDATES)) if asked else [])
        return [
            _allowed(next(said), mask, width) if token is None else [Guess(token, 1.0)]
            for mask, token in zip(masks, forced, strict=True)
        ]

    def _masks(self, nodes: Sequence[Node]) -> list[bytes] | None:
        """What is allowed below each node; an empty mask below one that has died."""
        if self._grammar is None:
            return None
        places: dict[Node, int] = {}
        tokens: list[int] = []
        parents: list[int] = []
        for node in nodes:
            for one in _path(node):
                if one not in places:
                    parents.append(-1 if one.parent is None else places.get(one.parent, -1))
                    places[one] = len(tokens)
                    tokens.append(one.token)
        try:
            masks = self._grammar.masks(tokens, parents)
        except GrammarError as error:
            self._give_up(error)
            return None
        return [masks[places.get(node, -1) + 1] if node.alive else b"" for node in nodes]

    def advance(self, tokens: Sequence[int]) -> None:
        """The committed text grew."""
        if self._grammar is not None:
            try:
                self._grammar.follow(tokens)
            except GrammarError as error:
                self._give_up(error)
        super().advance(tokens)


def _path(node: Node) -> list[Node]:
    """The nodes below the root, down to this one; none where it has died."""
    path: list[Node] = []
    while node.alive and node.parent is not None:
        path.append(node)
        node = node.parent
    return path[::-1]


def _allowed(guesses: Sequence[Guess], mask: bytes, width: int) -> list[Guess]:
    """The best ``width`` that the mask allows; what it forbids makes them so much more probable."""
    kept = [guess for guess in guesses if allows(mask, guess.token)]
    left = 1.0 - sum(guess.probability for guess in guesses) + sum(guess.probability for guess in kept)
    return [Guess(guess.token, min(1.0, guess.probability / left)) for guess in kept[:width]] if left > 0.0 else []
