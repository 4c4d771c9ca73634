"""The policy interface: when to draft, where, what to send, and how the walker should walk.

A policy looks at the grower's state and answers three questions; it waits for nothing and
changes nothing. It is asked again after every message and every draft step, but for steps that it
ordered together (``Step.more``).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from foredraft.core.tree import Node

if TYPE_CHECKING:
    from foredraft.core.grower import Grower


class Orders(msgspec.Struct, frozen=True, gc=False):
    """How the walker should walk; the fields are those of ``messages.Steer``."""

    alone_until: int = 0
    patience_s: float = 0.0
    min_nodes: int = 1
    max_branches: int = 1
    exits: tuple[int, ...] = ()
    threshold: float = 1.0
    max_nodes: int = 0
    cloud_drafts: int = 0


class Step(msgspec.Struct, frozen=True, gc=False):
    """One draft step: expand these nodes (the root or live nodes), each by up to ``width`` guesses.

    ``more``: so many steps follow, each below the one node that the step before brought; the policy is asked
    nothing in between, unless something else happens.
    """

    nodes: tuple[Node, ...]
    width: int = 1
    more: int = 0


class Policy(Protocol):
    """Decides for one session at the edge."""

    @property
    def name(self) -> str:
        """What users call it."""

    def orders(self, grower: "Grower") -> Orders:
        """How the walker should walk from now on."""

    def step(self, grower: "Grower") -> Step | None:
        """The next draft step; None to wait until something happens."""

    def ship(self, grower: "Grower") -> Sequence[Node]:
        """Nodes that the cloud should have now; unsent ancestors go along."""
