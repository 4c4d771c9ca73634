"""``sync``: synchronous speculative decoding over a link (Leviathan et al., 2023).

A round drafts gamma tokens, ships them, and waits for the verdict. Nothing overlaps:
gamma draft steps, a round trip and a target pass per round.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.errors import ConfigError
from foredraft.policies.chain import extend_root, finished_chain
from foredraft.policies.parameters import Parameter
from foredraft.protocol.tree import Node

_PARAMS = VerifyParams()


@dataclass(frozen=True, slots=True)
class SyncPolicy:
    """Draft ``gamma`` tokens, ship them, wait for the commit."""

    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("gamma", 1, 16),)

    gamma: int = 4
    name: str = "sync"

    def __post_init__(self) -> None:
        if self.gamma < 1:
            raise ConfigError(f"gamma must be 1 or more, not {self.gamma!r}")

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Verify whatever comes; never decode alone."""
        return _PARAMS

    def step(self, state: EdgeState) -> Step | None:
        """Extend the chain below the tip, unless it is being verified."""
        return None if state.verifying else extend_root(state, self.gamma)

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """The chain, once it is complete."""
        return () if state.verifying else finished_chain(state, self.gamma)
