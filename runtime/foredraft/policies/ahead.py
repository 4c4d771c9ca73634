"""``ahead``: growth never stops, and branches are at the cloud before the verdict is.

The tree grows best node first, by the probability that the walk gets there: the
draft's own probabilities multiplied down the path, reweighed at once by what a hint says.
Several nodes are expanded per draft step, each by several tokens where a rejection is likely.
What is likely enough is shipped at once, so that on a commit the cloud finds the branch that
came true and starts the next pass without a round trip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.errors import ConfigError
from foredraft.policies.frontier import unexpanded, unsent
from foredraft.policies.hints import worth_asking
from foredraft.policies.parameters import Parameter
from foredraft.protocol.tree import Node


@dataclass(frozen=True, slots=True)
class AheadPolicy:
    """Best-first growth without a stop, shipped before the verdict.

    ``width``: guesses per expanded node. ``batch``: nodes expanded per draft step.
    ``min_probability``: least probability that the walk gets to a node, for it to be shipped.
    ``max_pending``: nodes at the cloud at a time. ``patience_s``: how long the cloud waits for
    a branch before it decodes alone. ``min_nodes``: nodes worth a pass while patience lasts.
    ``threshold``: least probability that a hint is right. ``branches``: leaves in one pass.
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("width", 1, 8),
        Parameter("batch", 1, 32, log=True),
        Parameter("min_probability", 0.001, 0.3, log=True),
        Parameter("max_pending", 4, 256, log=True),
        Parameter("patience_s", 0.001, 4.0, log=True),
        Parameter("min_nodes", 1, 16),
        Parameter("threshold", 0.0, 1.0, step=0.05),
        Parameter("branches", 1, 64, log=True),
    )

    width: int = 4
    batch: int = 8
    min_probability: float = 0.02
    max_pending: int = 96
    patience_s: float = 0.25
    min_nodes: int = 1
    threshold: float = 0.1
    branches: int = 32
    name: str = "ahead"

    def __post_init__(self) -> None:
        if self.width < 1 or self.batch < 1:
            raise ConfigError(f"width and batch must be 1 or more, not {self.width!r} and {self.batch!r}")

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Decode alone where nothing is attached below the tip, after some patience."""
        exits, threshold = worth_asking(state, self.threshold)
        return VerifyParams(
            alone_until=state.end,
            patience_s=self.patience_s,
            min_nodes=self.min_nodes,
            max_branches=self.branches,
            exits=exits,
            threshold=threshold,
        )

    def step(self, state: EdgeState) -> Step | None:
        """Expand the likeliest nodes that were not expanded yet."""
        best = unexpanded(state, self.batch, self.min_probability)
        return Step(tuple(node for _, node in best), self.width) if best else None

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """What is likely enough and not there yet, likeliest first."""
        wanted, pending = unsent(state, self.min_probability)
        return wanted[: max(0, self.max_pending - pending)]
