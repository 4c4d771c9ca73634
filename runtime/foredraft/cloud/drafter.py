"""A draft model beside the target (placement ``colocated``).

It attaches its guesses to the cloud's own tree, below the deepest node that is there, so it goes on
from what the edge shipped, and alone where the edge ships nothing. When it drafts, and how deep, is
the cloud's decision (``state``), by the edge's orders.
"""

import logging
from collections.abc import Sequence

from foredraft.cloud.proposals import Proposals
from foredraft.errors import ForedraftError
from foredraft.protocol.ports import Drafter, Guess, NewDrafter
from foredraft.protocol.rejection import CANDIDATES, propose
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree, Node

log = logging.getLogger("foredraft.cloud")


class CloudDrafter:
    """One session's drafter in the cloud; it begins to follow the text with its first step.

    One that fails has no ideas from then on: the text goes on without.
    """

    def __init__(
        self, new_drafter: NewDrafter, tree: DraftTree, sampling: Sampling, proposals: Proposals | None = None
    ) -> None:
        """``proposals``: where to put what the drafter proposes, if it is for rejection sampling."""
        self._new_drafter = new_drafter
        self._tree = tree
        self._sampling = sampling
        self._proposals = proposals
        self._drafter: Drafter | None = None
        self._failed = False

    async def extend(self, node: Node) -> None:
        """Hang the best guess below a live leaf (or the root); without any idea, the leaf is barren."""
        guesses = [] if self._failed else await self._guesses(node)
        node.barren = not guesses
        for guess in guesses[:1]:
            self._tree.add(node, guess.token, guess.probability)

    async def _guesses(self, node: Node) -> list[Guess]:
        try:
            if self._drafter is None:
                self._drafter = self._new_drafter()
                asked = self._sampling if self._proposals is None else Sampling(seed=self._sampling.seed)
                await self._drafter.begin(self._tree.tokens, asked)
            (guesses,) = await self._drafter.draft([node], 1 if self._proposals is None else CANDIDATES)
        except ForedraftError as error:
            log.warning("the drafter beside the target failed, and a text goes on without: %s", error)
            self._failed = True
            return []
        return guesses if self._proposals is None or not guesses else self._drawn(node, guesses, self._proposals)

    def _drawn(self, node: Node, guesses: Sequence[Guess], proposals: Proposals) -> list[Guess]:
        """What of a proposal is tried first: the edge's, where that has come before."""
        proposal = propose({guess.token: guess.probability for guess in guesses}, self._sampling)
        return [Guess(token, 1.0) for token in proposals.add(node.anchor, proposal).tokens[:1]]

    def advance(self, tokens: Sequence[int]) -> None:
        """The committed text grew by ``tokens``."""
        if self._drafter is not None:
            self._drafter.advance(tokens)

    async def close(self) -> None:
        """Give the drafter up."""
        if self._drafter is not None:
            await self._drafter.close()
