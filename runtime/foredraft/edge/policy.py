"""The policy interface: when to draft, where, what to send, and how the walker should walk.

A policy looks at the grower's state and answers three questions; it waits for nothing and
changes nothing. It is asked again after every message and every draft step, but for steps that it
ordered together (``Step.more``).
"""

from collections.abc import Sequence
from typing import Protocol

from foredraft.edge.state import Grower
from foredraft.edge.step import Orders, Step
from foredraft.protocol.tree import Node


class Policy(Protocol):
    """Decides for one session at the edge."""

    @property
    def name(self) -> str:
        """What users call it."""

    def orders(self, grower: Grower) -> Orders:
        """How the walker should walk from now on."""

    def step(self, grower: Grower) -> Step | None:
        """The next draft step; None to wait until something happens."""

    def ship(self, grower: Grower) -> Sequence[Node]:
        """Nodes that the cloud should have now; unsent ancestors go along."""
