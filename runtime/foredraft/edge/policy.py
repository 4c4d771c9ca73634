"""The policy interface: when to draft, where, what to send, and how the cloud should verify.

A policy looks at the edge's state and answers three questions; it waits for nothing and
changes nothing. It is asked again after every message and every draft step.
"""

from collections.abc import Sequence
from typing import Protocol

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.protocol.tree import Node


class Policy(Protocol):
    """Decides for one session at the edge."""

    @property
    def name(self) -> str:
        """What users call it."""

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """How the cloud should verify from now on."""

    def step(self, state: EdgeState) -> Step | None:
        """The next draft step; None to wait until something happens."""

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """Nodes that the cloud should have now; unsent ancestors go along."""
