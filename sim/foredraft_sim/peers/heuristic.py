"""transformers' heuristic schedule of ``num_assistant_tokens``: two more where all were right, else one less.

Differences: it begins with 5 tokens, as transformers did until 4.46; there the models share a machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.policies.chain import extend_root, finished_chain
from foredraft.protocol.tree import Node


@dataclass(slots=True)
class Heuristic:
    """Synchronous rounds of a length that the rounds before have set. One for each text."""

    gamma: int = 5
    most: int = 20
    name: str = "heuristic"
    _passes: int = 0
    _drafted: int = 0
    _accepted: int = 0

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Verify whatever comes."""
        return VerifyParams()

    def step(self, state: EdgeState) -> Step | None:
        """Extend the chain below the tip, unless it is being verified."""
        self._look_back(state)
        return None if state.verifying else extend_root(state, self.gamma)

    def _look_back(self, state: EdgeState) -> None:
        """A round is over: the next one is longer or shorter."""
        tally = state.tally
        if tally.passes > self._passes:
            drafted, accepted = tally.drafted - self._drafted, tally.accepted - self._accepted
            self.gamma = min(self.most, self.gamma + 2) if accepted == drafted else max(1, self.gamma - 1)
            self._passes, self._drafted, self._accepted = tally.passes, tally.drafted, tally.accepted

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """The chain, once it is complete."""
        self._look_back(state)
        return () if state.verifying else finished_chain(state, self.gamma)
