"""The policy that a server recommends, and the edge that takes it up where it was given none of its own.

What comes from a server is text that nobody vouches for: it names one of Foredraft's own policies, with declared
parameters in their ranges, or it is not followed. No module is imported and no file is read because a server
said so.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from foredraft.edge.policy import Policy
from foredraft.edge.session_report import EDGE, NOBODY, SERVER
from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.errors import ConfigError, UnknownNameError
from foredraft.policies import GROUP, policy_class
from foredraft.policies.auto import AutoPolicy
from foredraft.policies.colocated import drafts_in_cloud
from foredraft.policies.parameters import Parameter, describe_policy, with_parameters
from foredraft.policies.policy_file import spec_of
from foredraft.protocol.messages import Ready
from foredraft.protocol.sampling import StopRules
from foredraft.protocol.tree import Node

log = logging.getLogger("foredraft.edge")

MOST_LETTERS: Final = 300


def own_names() -> list[str]:
    """The names of Foredraft's own policies; those that other packages bring are not among them."""
    known = entry_points(group=GROUP)
    return sorted(name for name in known.names if known[name].module.startswith("foredraft.policies."))


@lru_cache(maxsize=16)  # looking installed names up takes milliseconds, and an edge does it for each text
def recommended_policy(spec: str, exits: tuple[int, ...] | None, cloud_drafts: bool) -> Policy:
    """The policy that a server with these exits (None: not known yet) may recommend as ``spec``.

    Raises UnknownNameError, ConfigError for whatever else.
    """
    if len(spec) > MOST_LETTERS:
        raise ConfigError(f"a specification of {len(spec)} letters; at most {MOST_LETTERS} are taken from a server")
    name = spec.partition(":")[0]
    if name not in own_names():
        kind = "built-in policy (edges run no other on a server's word: name it there)"
        raise UnknownNameError(kind, name, own_names())
    factory, given = policy_class(spec)
    declared: Sequence[Parameter] = getattr(factory, "parameters", ())
    for one in declared:
        if one.name in given and not one.least <= given[one.name] <= one.most:
            raise ConfigError(f"{one.name} must be {one.least!r} to {one.most!r}, not {given[one.name]!r}")
    policy: Policy = factory(**given)
    asked = policy.verify_params(EdgeState((0,), StopRules(1))).exits
    if exits is not None and (unknown := set(asked) - set(exits)):
        raise ConfigError(f"no exit after layer {min(unknown)}; the target has {sorted(exits)}")
    if not cloud_drafts and drafts_in_cloud(policy):
        raise ConfigError(f"{name!r} drafts in the cloud, and this server has no draft model (serve --draft MODEL)")
    return policy


def recommendation(policy: str | Path, exits: tuple[int, ...] | None, cloud_drafts: bool) -> str:
    """What a server sends for a specification or a policy file; nothing for nothing.

    Raises UnknownNameError, ConfigError for what it cannot serve, and what no edge would follow.
    """
    if not str(policy):
        return ""
    try:
        spec = spec_of(str(policy))
        recommended_policy(spec, exits, cloud_drafts)
    except ConfigError as error:
        raise ConfigError(f"the policy {str(policy)!r} cannot be recommended to edges: {error}") from error
    return spec


class Recommended:
    """The policy of an edge that was given none: what the cloud at the other end recommends, else ``auto``.

    Each cloud that the session comes to is heard anew. ``running`` is what decides at present; ``origin``
    is SERVER or NOBODY; ``refusal`` says why a recommendation is not followed.
    """

    def __init__(self, ready: Ready) -> None:
        self._heard = ready
        self._take_up(ready)

    @property
    def name(self) -> str:
        """The running policy's."""
        return self.running.name

    @property
    def spec(self) -> str:
        """The running policy's specification, with the parameters that the server gave it."""
        if self.origin == NOBODY:
            return self.name
        return with_parameters(self.name, policy_class(self._heard.policy)[1])

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """The running policy's."""
        return self._now(state).verify_params(state)

    def step(self, state: EdgeState) -> Step | None:
        """The running policy's."""
        return self._now(state).step(state)

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """The running policy's."""
        return self._now(state).ship(state)

    def _now(self, state: EdgeState) -> Policy:
        """Without a link, what ran before goes on."""
        ready = state.ready
        if ready is not None and ready is not self._heard:
            known, self._heard = self._heard, ready
            if ready != known:
                self._take_up(ready)
        return self.running

    def _take_up(self, ready: Ready) -> None:
        self.running: Policy = AutoPolicy()
        self.origin, self.refusal = NOBODY, ""
        if not ready.policy:
            return
        try:
            self.running = recommended_policy(ready.policy, ready.exits, ready.cloud_drafts > 0)
            self.origin = SERVER
        except ConfigError as error:
            self.refusal = f"the server recommends {ready.policy[:60]!r}, which is not followed: {str(error)[:200]}"
            log.warning("%s; the policy is %s", self.refusal, self.name)


def spec_of_running(policy: Policy) -> str:
    """A specification of what runs. Raises ConfigError for a policy of one's own that has none."""
    return policy.spec if isinstance(policy, Recommended) else describe_policy(policy)


def origin_of(policy: Policy) -> str:
    """Who named it: EDGE, SERVER or NOBODY."""
    return policy.origin if isinstance(policy, Recommended) else EDGE


def policy_line(policy: Policy) -> str:
    """Which policy runs and who named it, in a line."""
    if not isinstance(policy, Recommended):
        return f"policy: {policy.name}, named at the edge"
    if policy.origin == SERVER:
        return f"policy: {policy.spec}, recommended by the server"
    return f"policy: {policy.spec}, as {policy.refusal or 'neither edge nor server names one'}"
