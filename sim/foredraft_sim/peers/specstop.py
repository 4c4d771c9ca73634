"""UCB-SpecStop (arXiv 2606.20591): the length of a chain follows the delay.

A round costs its draft steps, the round trip and the pass; what it brings grows less with each token. The length is the
one with the most tokens per second by what was measured so far.

Differences from the paper: its bandit tries lengths and counts what they bring; the lengths here are weighed by the
session's own estimates (acceptance, draft step, round trip, pass), which need no trying.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from foredraft.edge.path_probability import expected_tokens
from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.policies.chain import extend_root, finished_chain
from foredraft.protocol.tree import Node

MIN_SAMPLES = 6


@dataclass(frozen=True, slots=True)
class SpecStop:
    """Synchronous rounds of a length between 1 and ``most``; ``first`` until enough is known."""

    first: int = 4
    most: int = 16
    name: str = "specstop"

    def gamma(self, state: EdgeState) -> int:
        """The length that pays most at present."""
        seen = state.estimates.snapshot()
        if seen.samples < MIN_SAMPLES or not any(seen.passes_s):
            return self.first

        def tokens_per_s(gamma: int) -> float:
            round_s = gamma * seen.draft_step_s + seen.round_trip_s + seen.pass_s(gamma)
            return expected_tokens(seen.ranks[:1], gamma, gamma) / round_s

        return max(range(1, self.most + 1), key=tokens_per_s)

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Verify whatever comes."""
        return VerifyParams()

    def step(self, state: EdgeState) -> Step | None:
        """Extend the chain below the tip, unless it is being verified."""
        return None if state.verifying else extend_root(state, self.gamma(state))

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """The chain, once it is complete."""
        return () if state.verifying else finished_chain(state, self.gamma(state))
