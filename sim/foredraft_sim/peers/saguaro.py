"""SSD / Saguaro (arXiv 2603.03251): speculation during verification, for the outcomes that are likeliest.

An outcome is how much of the chain is accepted and which token comes then. The likeliest ``outcomes`` have a chain
drafted below them while the verdict is awaited; a hit is sent at once.

Differences from the paper: there both models are on one node, and all outcomes are drafted in one batch on a device of
their own; here there is a link between them, and the outcomes are drafted best first, up to eight a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.policies.chain import finished_chain
from foredraft.protocol.tree import Node
from foredraft_sim.peers.branches import chain_then_branches, others


@dataclass(frozen=True, slots=True)
class Saguaro:
    """Chains of ``gamma``, and as long ones below the ``outcomes`` likeliest verdicts."""

    gamma: int = 4
    outcomes: int = 8
    width: int = 4
    name: str = "saguaro"

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Verify whatever comes."""
        return VerifyParams()

    def step(self, state: EdgeState) -> Step | None:
        """The chain; during verification one token more below each outcome that is short of it."""
        verdicts = partial(self._likeliest, state)
        return chain_then_branches(state, self.gamma, self.width, self.width, verdicts)

    def _likeliest(self, state: EdgeState, sent: Sequence[Node]) -> list[Node]:
        probability = dict(state.path_probabilities)
        verdicts = [other for node in (state.root, *sent) for other in others(node)]
        return sorted(verdicts, key=lambda node: -probability.get(node, 0.0))[: self.outcomes]

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """The chain, once it is complete and the verdict on the one before is in."""
        return () if state.verifying else finished_chain(state, self.gamma)
