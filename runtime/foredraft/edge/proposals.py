"""The draft under rejection sampling (``protocol.rejection``): it proposes a distribution, and drafts what is drawn.

What a prefix's token is depends on what the draft proposes there, and on whether the cloud knows of it. So no decision
that looks at the tokens drawn from a proposal may decide whether that is sent: all are, before the cloud can next run
a pass. The policy decides about nodes alone, and those decide nothing but where the next pass may go on.
"""

from collections.abc import Sequence

from foredraft.protocol.around import DrafterAround
from foredraft.protocol.messages import MAX_CHAINS, Proposed, pack, pack_weights
from foredraft.protocol.ports import Drafter, Guess
from foredraft.protocol.rejection import CANDIDATES, Proposal, key_of, propose, trial
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node


class Proposing(DrafterAround):
    """Around any drafter; keeps what is to be sent of its proposals.

    The drafter is asked for its likeliest tokens, as at temperature 0; this puts the temperature on.
    """

    def __init__(self, inner: Drafter, sampling: Sampling) -> None:
        """``sampling``: of the text; its temperature is above 0."""
        super().__init__(inner)
        self._sampling = sampling
        self._made: dict[Node, Proposal] = {}
        self._unsent: list[Node] = []

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A text begins, or begins anew."""
        await super().begin(tokens, Sampling(seed=sampling.seed))

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """Below each node, what its proposal's first draws are; how probable the first one is does not depend on it."""
        found = await super().draft(nodes, max(width, CANDIDATES))
        return [self._drawn(node, guesses, width) for node, guesses in zip(nodes, found, strict=True)]

    def _drawn(self, node: Node, guesses: Sequence[Guess], width: int) -> list[Guess]:
        if not node.alive:
            return []
        proposal = self._made.get(node)
        if proposal is None:
            proposal = propose({guess.token: guess.probability for guess in guesses}, self._sampling)
            self._made[node] = proposal
            self._unsent.append(node)
        tried, total = trial(key_of(self._sampling.seed, node.anchor), proposal), sum(proposal.weights)
        likeliest_first = zip(tried.tokens[:width], proposal.weights, strict=False)
        return [Guess(token, weight / total) for token, weight in likeliest_first]

    def advance(self, tokens: Sequence[int]) -> None:
        """The committed text grew."""
        self._made = {node: proposal for node, proposal in self._made.items() if node.alive}
        super().advance(tokens)

    def unsent(self) -> tuple[Proposed, ...]:
        """The proposals that are to be sent now, as many as one message holds; they count as sent."""
        alive = [node for node in self._unsent if node.alive]
        self._unsent = alive[MAX_CHAINS:]
        return tuple([self._proposed(node) for node in alive[:MAX_CHAINS]])

    def _proposed(self, node: Node) -> Proposed:
        prefix, proposal = node.anchor, self._made[node]
        return Proposed(prefix.position, prefix.hash, pack(proposal.tokens), pack_weights(proposal.weights))

    def lost(self) -> None:
        """Nothing is known to have been sent any more: the link is another one."""
        self._unsent = list(self._made)
