"""SpecEdge (arXiv 2505.17052, kaist-ina/specedge): a draft tree from the edge, and proactive drafting below one leaf.

The tree grows best node first up to a budget and is sent whole. While it is verified, the edge goes on below the
single likeliest leaf; if the walk ends there, the next tree has begun already.

Differences from the paper: tokens are accepted by shared noise instead of rejection sampling; its scheduling of many
edges on one server is our batching.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.policies.chain import extend
from foredraft.policies.frontier import unexpanded, unsent
from foredraft.protocol.tree import Node

_LEAST = 0.001


@dataclass(frozen=True, slots=True)
class SpecEdge:
    """Trees of ``nodes``, grown ``batch`` nodes a step by ``width`` guesses; ``ahead`` tokens below the best leaf."""

    nodes: int = 16
    width: int = 3
    batch: int = 4
    ahead: int = 4
    name: str = "specedge"

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Verify the whole tree."""
        return VerifyParams(max_branches=self.nodes, max_nodes=self.nodes)

    def step(self, state: EdgeState) -> Step | None:
        """The tree; during verification the chain below its likeliest leaf."""
        if state.verifying:
            leaf = self._best_leaf(state)
            left = state.position + state.useful_depth - leaf.position
            return extend(leaf, min(self.ahead, left))
        best = [] if self._is_complete(state) else unexpanded(state, self.batch, _LEAST)
        return Step(tuple(node for _, node in best), self.width) if best else None

    def _best_leaf(self, state: EdgeState) -> Node:
        """Of what is being verified."""
        leaves = [
            (probability, node)
            for node, probability in state.path_probabilities
            if node.sent and not any(child.sent for child in node.children)
        ]
        return max(leaves, key=lambda leaf: leaf[0])[1] if leaves else state.root

    def _is_complete(self, state: EdgeState) -> bool:
        return len(state.tree) >= min(self.nodes, state.room + len(state.tree))

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """The tree, once it is complete and the verdict on the one before is in."""
        if state.verifying or not (self._is_complete(state) or not unexpanded(state, 1, _LEAST)):
            return ()
        wanted, _ = unsent(state, 0.0)
        return wanted[: self.nodes]
