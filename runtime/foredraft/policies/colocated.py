"""``colocated`` and ``both``: drafting in the cloud, beside the target, alone or along with the edge.

For where a draft model fits beside the target: what it guesses is verified without a round trip, as in
assisted generation on one machine. With ``both``, the edge's branches come first, and the cloud's
drafter goes on below the deepest of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec

from foredraft.edge.policy import Policy
from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.errors import ConfigError
from foredraft.policies.ahead import AheadPolicy
from foredraft.policies.parameters import Parameter
from foredraft.protocol.sampling import StopRules
from foredraft.protocol.tree import Node

_CLOUD_GAMMA = Parameter("cloud_gamma", 1, 16)


def _check(cloud_gamma: int) -> None:
    if cloud_gamma < 1:
        raise ConfigError(f"cloud_gamma must be 1 or more, not {cloud_gamma!r}")


def drafts_in_cloud(policy: Policy) -> bool:
    """Whether it wants a draft model beside the target; without one a server refuses its orders."""
    return policy.verify_params(EdgeState((0,), StopRules(1))).cloud_drafts > 0


@dataclass(frozen=True, slots=True)
class ColocatedPolicy:
    """The cloud drafts ``cloud_gamma`` tokens before each pass; the edge only shows what comes."""

    parameters: ClassVar[tuple[Parameter, ...]] = (_CLOUD_GAMMA,)

    cloud_gamma: int = 4
    name: str = "colocated"

    def __post_init__(self) -> None:
        _check(self.cloud_gamma)

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Draft in the cloud, to the end."""
        return VerifyParams(cloud_drafts=self.cloud_gamma)

    def step(self, state: EdgeState) -> Step | None:
        """Never draft here."""
        return None

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """Nothing to send."""
        return ()


@dataclass(frozen=True, slots=True)
class BothPolicy(AheadPolicy):
    """``ahead`` at the edge, and ``cloud_gamma`` tokens below the tip filled up in the cloud."""

    parameters: ClassVar[tuple[Parameter, ...]] = (*AheadPolicy.parameters, _CLOUD_GAMMA)

    cloud_gamma: int = 4
    name: str = "both"

    def __post_init__(self) -> None:
        AheadPolicy.__post_init__(self)
        _check(self.cloud_gamma)

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Those of ``ahead``; the cloud drafts where the edge's branches end."""
        return msgspec.structs.replace(AheadPolicy.verify_params(self, state), cloud_drafts=self.cloud_gamma)
