"""``cloud``: the target decodes alone and streams; the baseline that everything is judged against."""

from collections.abc import Sequence
from dataclasses import dataclass

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.protocol.tree import Node


@dataclass(frozen=True, slots=True)
class CloudPolicy:
    """Autoregressive decoding in the cloud, streamed: one round trip per answer, one pass per token."""

    name: str = "cloud"

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Decode alone to the end."""
        return VerifyParams(alone_until=state.end)

    def step(self, state: EdgeState) -> Step | None:
        """Never draft."""
        return None

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """Nothing to send."""
        return ()
