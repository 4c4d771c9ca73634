"""PicoSpec (arXiv 2603.19133): an asynchronous pipeline. The edge drafts on as if all were accepted, and sends at once.

The next chain is at the cloud before the verdict on the one before it; a rejection throws away what is under way.

Differences from the paper: tokens are accepted by shared noise instead of its split rejection sampling, whose
probabilities are not sent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.policies.chain import extend_root
from foredraft.protocol.tree import Node


@dataclass(frozen=True, slots=True)
class PicoSpec:
    """Chains of ``gamma`` under way, up to ``chains`` of them."""

    gamma: int = 4
    chains: int = 4
    name: str = "picospec"

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Verify a chain's length at a time, of whatever is there."""
        return VerifyParams(max_nodes=self.gamma)

    def step(self, state: EdgeState) -> Step | None:
        """Go on below what is under way."""
        return extend_root(state, self.gamma * self.chains)

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """Each chain as soon as it is complete."""
        chain = state.likeliest()
        unsent = [node for node in chain if not node.sent]
        over = len(chain) >= state.deepest or (bool(chain) and chain[-1].barren)
        if len(unsent) >= self.gamma:
            return [unsent[len(unsent) // self.gamma * self.gamma - 1]]
        return unsent[-1:] if over else ()
