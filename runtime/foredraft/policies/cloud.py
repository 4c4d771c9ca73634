"""``cloud``: the target decodes alone and streams; the baseline that everything is judged against."""

from collections.abc import Sequence
from dataclasses import dataclass

from foredraft.edge.state import Grower
from foredraft.edge.step import Orders, Step
from foredraft.protocol.tree import Node


@dataclass(frozen=True, slots=True)
class CloudPolicy:
    """Autoregressive decoding in the cloud, streamed: one round trip per answer, one pass per token."""

    name: str = "cloud"

    def orders(self, grower: Grower) -> Orders:
        """Decode alone to the end."""
        return Orders(alone_until=grower.end)

    def step(self, grower: Grower) -> Step | None:
        """Never draft."""
        return None

    def ship(self, grower: Grower) -> Sequence[Node]:
        """Nothing to send."""
        return ()
