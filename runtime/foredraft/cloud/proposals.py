"""What the draft of one session thinks at prefixes of its text, for rejection sampling (``protocol.rejection``).

Proposals are kept by the prefix that they are about, whether or not the tree has it: a token is drawn the same way
whichever of the draft's candidates have come.
"""

from collections.abc import Sequence
from typing import Final

from foredraft.errors import RefusedError
from foredraft.protocol import messages
from foredraft.protocol.anchor import Anchor
from foredraft.protocol.messages import Proposed, unpack, unpack_weights
from foredraft.protocol.rejection import Proposal, Trial, key_of, trial
from foredraft.protocol.tree import DraftTree
from foredraft.protocol.walk import TIP

MOST: Final = 1024
"""Proposals held; beyond it the oldest goes."""


class Proposals:
    """The proposals of one session, whose sampling has this seed."""

    def __init__(self, tree: DraftTree, seed: int, vocab_size: int) -> None:
        self._tree, self._seed, self._vocab_size = tree, seed, vocab_size
        self._known: dict[Anchor, Proposal] = {}

    def take(self, proposed: Sequence[Proposed]) -> None:
        """Keep what the edge's draft proposes. Raises RefusedError or ProtocolError for what no honest edge sends."""
        for one in proposed:
            tokens, weights = unpack(one.tokens), unpack_weights(one.weights)
            if len(tokens) != len(weights) or len(set(tokens)) != len(tokens):
                raise RefusedError(messages.INVALID, f"{len(tokens)} proposed tokens, {len(weights)} weights")
            if tokens and max(tokens) >= self._vocab_size:
                reason = f"token id {max(tokens)} is outside the vocabulary of {self._vocab_size}"
                raise RefusedError(messages.INVALID, reason)
            self._keep(one.anchor, Proposal(tuple(tokens), tuple(weights)))

    def add(self, prefix: Anchor, proposal: Proposal) -> Trial:
        """Keep a proposal, unless there is one about the prefix; the order in which its candidates are tried."""
        self._keep(prefix, proposal)
        return self._trial(prefix)

    def _keep(self, prefix: Anchor, proposal: Proposal) -> None:
        position, known = self._tree.position, self._known
        if prefix.position >= position and prefix not in known:
            if len(known) >= MOST:
                self._known = known = {at: one for at, one in known.items() if at.position >= position}
            if len(known) >= MOST:
                del known[next(iter(known))]
            known[prefix] = proposal

    def trials(self, tokens: Sequence[int], parents: Sequence[int]) -> tuple[Trial, ...]:
        """Of the rows of a pass: the tip, and draft nodes below it, as in ``ports.Pass``."""
        prefixes = {TIP: self._tree.root.anchor}
        for node, (token, parent) in enumerate(zip(tokens, parents, strict=True)):
            prefixes[node] = prefixes[parent].then(token)
        return tuple([self._trial(prefix) for prefix in prefixes.values()])

    def _trial(self, prefix: Anchor) -> Trial:
        return trial(key_of(self._seed, prefix), self._known.get(prefix))
