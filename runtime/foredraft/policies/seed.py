"""``seed``: early exits and preemptive drafting, after the paper that Foredraft grew from.

As ``sync``, and in the time that the edge would idle: a hint from an exit tells which branch
will probably commit, and the next chain is drafted below it. It is shipped after the commit,
if the commit went there ("Fast and Cost-effective Speculative Edge-Cloud Decoding with Early
Exits", arXiv 2505.21594).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.errors import ConfigError
from foredraft.policies.chain import extend, extend_root, finished_chain
from foredraft.policies.parameters import Parameter
from foredraft.protocol.tree import Node


@dataclass(frozen=True, slots=True)
class SeedPolicy:
    """Synchronous rounds of ``gamma``, with growth along the hinted branch during verification.

    ``threshold``: least probability that a hint is right, or it is cut short. ``exits``: the
    layers that may hint; all of the target's when empty.
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("gamma", 1, 16),
        Parameter("threshold", 0.0, 1.0, step=0.05),
    )

    gamma: int = 4
    threshold: float = 0.5
    exits: tuple[int, ...] = ()
    name: str = "seed"

    def __post_init__(self) -> None:
        if self.gamma < 1:
            raise ConfigError(f"gamma must be 1 or more, not {self.gamma!r}")
        if not 0.0 <= self.threshold <= 1.0:
            raise ConfigError(f"threshold must be between 0 and 1, not {self.threshold!r}")

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Verify whatever comes, and hint on the way."""
        offered = () if state.ready is None else state.ready.exits
        return VerifyParams(exits=self.exits or offered, threshold=self.threshold)

    def step(self, state: EdgeState) -> Step | None:
        """Extend the chain below the tip; while it is being verified, the one below the hint."""
        if not state.verifying:
            return extend_root(state, self.gamma)
        hinted = state.hinted
        if hinted is None:
            return None
        ahead = hinted.position - state.position
        return extend(hinted, min(self.gamma, state.useful_depth - ahead))

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """The chain below the tip, once it is complete and the verdict on the one before is in."""
        return () if state.verifying else finished_chain(state, self.gamma)
