"""PipeSD (arXiv 2605.13319): tokens leave in batches while the chain is still being drafted; two thresholds end it.

Drafting ends where the last token is too unsure, or the chain as a whole is; what is drafted is on its way
meanwhile, so that sending and drafting overlap. The cloud verifies when the chain is complete.

Differences from the paper: no probabilities go up, since tokens are accepted by shared noise instead of rejection
sampling; the thresholds are parameters, and not tuned by its Bayesian search (``foredraft tune`` can).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.policies.chain import extend_root
from foredraft.protocol.tree import Node

PATIENCE_S = 30.0
"""The cloud waits for the end of a chain that has begun."""


@dataclass(frozen=True, slots=True)
class PipeSD:
    """Chains of up to ``gamma``; ``token`` and ``chain``: the least probabilities of its last and of all of its tokens.

    ``batch``: so many tokens leave at once.
    """

    gamma: int = 8
    batch: int = 2
    token: float = 0.2
    chain: float = 0.1
    name: str = "pipesd"

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Verify when the chain is complete."""
        length = len(state.likeliest())
        return VerifyParams(patience_s=PATIENCE_S, min_nodes=max(1, length if self._is_over(state) else self.gamma))

    def _is_over(self, state: EdgeState) -> bool:
        chain = state.likeliest()
        if not chain:
            return False
        whole = 1.0
        for node in chain:
            whole *= node.probability
        unsure = chain[-1].probability < self.token or whole < self.chain
        return unsure or chain[-1].barren or len(chain) >= min(self.gamma, state.deepest)

    def step(self, state: EdgeState) -> Step | None:
        """Extend the chain until it is over."""
        return None if self._is_over(state) else extend_root(state, self.gamma)

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """What makes a batch, or the rest."""
        chain = state.likeliest()
        unsent = [node for node in chain if not node.sent]
        return unsent[-1:] if unsent and (self._is_over(state) or len(unsent) >= self.batch) else ()
