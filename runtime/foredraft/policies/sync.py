"""``sync``: synchronous speculative decoding over a link (Leviathan et al., 2023).

A round drafts gamma tokens, ships them, and waits for the verdict. Nothing overlaps:
gamma draft steps, a round trip and a target pass per round.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from foredraft.edge.state import Grower
from foredraft.edge.step import Orders, Step
from foredraft.errors import ConfigError
from foredraft.policies.chain import extend_root, finished_chain
from foredraft.policies.parameters import Parameter
from foredraft.protocol.tree import Node

_ORDERS = Orders()


@dataclass(frozen=True, slots=True)
class SyncPolicy:
    """Draft ``gamma`` tokens, ship them, wait for the commit."""

    parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("gamma", 1, 16),)

    gamma: int = 4
    name: str = "sync"

    def __post_init__(self) -> None:
        if self.gamma < 1:
            raise ConfigError(f"gamma must be 1 or more, not {self.gamma!r}")

    def orders(self, grower: Grower) -> Orders:
        """Verify whatever comes; never decode alone."""
        return _ORDERS

    def step(self, grower: Grower) -> Step | None:
        """Extend the chain below the tip, unless it is being verified."""
        return None if grower.verifying else extend_root(grower, self.gamma)

    def ship(self, grower: Grower) -> Sequence[Node]:
        """The chain, once it is complete."""
        return () if grower.verifying else finished_chain(grower, self.gamma)
