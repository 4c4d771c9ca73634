"""What a policy orders: draft steps at the edge, and how the cloud verifies."""

import msgspec

from foredraft.protocol.tree import Node


class VerifyParams(msgspec.Struct, frozen=True, gc=False):
    """How the cloud should verify; the fields are those of ``messages.Steer``."""

    alone_until: int = 0
    patience_s: float = 0.0
    min_nodes: int = 1
    max_branches: int = 1
    exits: tuple[int, ...] = ()
    threshold: float = 1.0
    max_nodes: int = 0
    cloud_drafts: int = 0


class Step(msgspec.Struct, frozen=True, gc=False):
    """One draft step: expand these nodes (the root or live nodes), each by up to ``width`` guesses."""

    nodes: tuple[Node, ...]
    width: int = 1
