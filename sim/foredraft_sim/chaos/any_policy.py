"""A policy that does whatever the interface allows, drawn anew each time it is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.protocol.tree import Node


@dataclass
class AnyPolicy:
    """``lazy``: how often it drafts nothing; ``alone``: how often the cloud may decode alone."""

    rng: Random
    lazy: float = 0.3
    alone: float = 0.2
    patience_s: float = 1.0
    name: str = "any"

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Orders at random."""
        rng = self.rng
        exits = () if state.ready is None else state.ready.exits
        return VerifyParams(
            alone_until=state.position + rng.choice((-1, 0, 1, 3, 1 << 40)) if rng.random() < self.alone else 0,
            patience_s=rng.random() * self.patience_s,
            min_nodes=rng.choice((0, 1, 2, 9)),
            max_branches=rng.choice((0, 1, 2, 9)),
            exits=tuple(layer for layer in exits if rng.random() < 0.7),
            threshold=rng.random(),
        )

    def step(self, state: EdgeState) -> Step | None:
        """Up to three nodes, wherever they are."""
        if self.rng.random() < self.lazy:
            return None
        nodes = [state.root, *state.tree.nodes()]
        return Step(tuple(self.rng.sample(nodes, min(len(nodes), self.rng.randint(0, 3)))), self.rng.randint(1, 3))

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """Any nodes, in any order."""
        nodes = [state.root, *state.tree.nodes()]
        return self.rng.sample(nodes, self.rng.randint(0, len(nodes)))
