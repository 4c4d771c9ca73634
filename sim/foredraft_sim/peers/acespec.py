"""AceSpec (arXiv 2609.02514): while a chain is verified, a cache of branches is drafted for the verdicts that may come.

At each place of the chain the draft's next best tokens are verdicts that are likely; the fan-out falls geometrically
with depth, since the walk gets there less often. When the verdict comes true in the cache, its branch is sent at once.

Differences from the paper: tokens are accepted by shared noise instead of rejection sampling; fan-out and decay are
parameters and not learned; up to eight branches grow in one draft step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.policies.chain import finished_chain
from foredraft.protocol.tree import Node
from foredraft_sim.peers.branches import chain_then_branches, others


@dataclass(frozen=True, slots=True)
class AceSpec:
    """Chains of ``gamma``; ``fan_out`` other verdicts below the tip, ``decay`` of that per token further down."""

    gamma: int = 4
    fan_out: int = 3
    decay: float = 0.6
    name: str = "acespec"

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Verify whatever comes."""
        return VerifyParams()

    def step(self, state: EdgeState) -> Step | None:
        """The chain, its nodes with siblings; during verification the branches of other verdicts."""
        verdicts = partial(self._verdicts, state.root)
        return chain_then_branches(state, self.gamma, self.fan_out + 1, self.fan_out, verdicts)

    def _verdicts(self, root: Node, sent: Sequence[Node]) -> Iterator[Node]:
        """Other verdicts, those below the tip first."""
        for depth, node in enumerate((root, *sent)):
            yield from others(node)[: max(1, round(self.fan_out * self.decay**depth))]

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """The chain, once it is complete and the verdict on the one before is in."""
        return () if state.verifying else finished_chain(state, self.gamma)
