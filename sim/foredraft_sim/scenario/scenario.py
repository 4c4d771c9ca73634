"""Scenarios: who talks to whom over what, with which policies, about what, how often.

A TOML file names hardware profiles for the edge, the cloud and the link (by name, or by a path
relative to the file), the pair that says the tokens, the policies to compare, the workload and the
seeds. Numbers of a profile can be overridden; they count as assumed from then on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from foredraft.edge.policy import Policy
from foredraft.errors import ConfigError
from foredraft.policies import make_policy
from foredraft.policies.policy_file import spec_of
from foredraft.profiles import (
    DraftProfile,
    LinkProfile,
    Profile,
    Provenance,
    TargetProfile,
    load_profile,
)
from foredraft.profiles.strict import convert, parse_toml, read_text
from foredraft.protocol.sampling import REJECTION, Sampling
from foredraft_sim.errors import ScenarioError
from foredraft_sim.scenario.checks import check_link, check_workload
from foredraft_sim.scenario.packing import packed
from foredraft_sim.scenario.scenario_file import (
    AsRecorded,
    KeyTable,
    Length,
    ModelPair,
    Override,
    Pair,
    ScenarioFile,
    Table,
    Workload,
    most_of,
)
from foredraft_sim.scenario.traffic import Traffic, read_traffic
from foredraft_sim.streams import key
from foredraft_sim.tokens.fitted import DrawnPair

_SEED_BITS: Final = 62


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario, with everything that its file names."""

    path: Path
    file: ScenarioFile
    draft: DraftProfile
    target: TargetProfile
    link: LinkProfile
    pair: Pair
    cloud_draft: DraftProfile | None = None
    traffic: Traffic | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds; a count n means 1 to n."""
        seeds = self.file.seeds
        return tuple(range(1, seeds + 1)) if isinstance(seeds, int) else seeds

    @property
    def workload(self) -> Workload:
        """What is asked."""
        return self.file.workload

    def __reduce__(self) -> Any:
        return packed(self)

    def key_of(self, request: int) -> KeyTable | None:
        """Whose request it is; None where there are no keys."""
        device = request % self.workload.devices
        for table in self.file.keys:
            if device < table.devices:
                return table
            device -= table.devices
        return None

    def lengths_of(self, request: int) -> tuple[Length, Length]:
        """Of a request's prompt and text."""
        usual = (self.workload.prompt_tokens, self.workload.new_tokens)
        return self._lengths(self.key_of(request), usual if self.traffic is None else self.traffic.lengths_of(request))

    def _lengths(self, table: KeyTable | None, usual: tuple[Length, Length]) -> tuple[Length, Length]:
        prompt, new = (None, None) if table is None else (table.prompt_tokens, table.new_tokens)
        return prompt or usual[0], new or usual[1]

    @property
    def longest(self) -> tuple[int, int]:
        """The most tokens of a prompt, and of a text."""
        usual = (self.workload.prompt_tokens, self.workload.new_tokens)
        usual = usual if self.traffic is None else self.traffic.longest
        prompts, texts = zip(*(self._lengths(table, usual) for table in (None, *self.file.keys)), strict=True)
        return max(map(most_of, prompts)), max(map(most_of, texts))

    @property
    def rejects(self) -> bool:
        """Whether drafts are accepted by rejection sampling."""
        return self.file.sampling.acceptance == REJECTION

    def sampling(self, seed: int, request: int) -> Sampling:
        """The sampling of a request: the same luck whatever the policy."""
        table = self.file.sampling
        own = key(seed, f"request {request}") >> (64 - _SEED_BITS)
        if self.rejects and isinstance(self.pair, DrawnPair):
            return Sampling(1.0, seed=own)  # proposals have the draft's probabilities as the pair says them
        return Sampling(table.temperature, table.top_k, table.top_p, own)

    def policy(self, spec: str) -> Policy:
        """A policy for one session. Raises ScenarioError."""
        try:
            return make_policy(spec)
        except ConfigError as error:
            raise ScenarioError(f"{self.path}: policies: {spec!r}: {error}") from error
        except Exception as error:  # the policy may be anybody's
            reason = f"{type(error).__name__}: {error}"
            raise ScenarioError(f"{self.path}: policies: {spec!r} cannot be made: {reason}") from error


def read_scenario(path: Path) -> Scenario:
    """The scenario in a TOML file. Raises ScenarioError naming file, key and value."""
    plain = parse_toml(read_text(path, ScenarioError), path, ScenarioError)
    file = convert(plain, ScenarioFile, path, ScenarioError)
    file = msgspec.structs.replace(file, policies=tuple(_named_policy(path, policy) for policy in file.policies))
    scenario = Scenario(
        path,
        file,
        draft=_profile(path, "edge", file.edge, "draft"),
        target=_profile(path, "cloud", file.cloud, "target"),
        link=_profile(path, "link", file.link, "link"),
        pair=_pair(path, file.pair),
        cloud_draft=_named(path, "cloud.draft", file.cloud.draft, "draft") if file.cloud.draft else None,
        traffic=read_traffic(path.parent / file.workload.traffic) if file.workload.traffic else None,
    )
    for spec in file.policies:
        scenario.policy(spec)
    check_link(scenario)
    check_workload(scenario)
    return scenario


def _profile(path: Path, table: str, named: Override, kind: Literal["draft", "target", "link"]) -> Any:
    """The profile that a table names, with what the table overrides."""
    profile = _named(path, f"{table}.profile", named.profile, kind)
    return _overridden(f"{path}: {table}.override", profile, named.override, f"overridden in {path.name}")


def _named_policy(path: Path, policy: str) -> str:
    """A policy file's name is relative to the scenario's."""
    try:
        return spec_of(policy, path.parent)
    except ConfigError as error:
        raise ScenarioError(f"{path}: policies: {error}") from error


def _named(path: Path, at: str, name: str, kind: Literal["draft", "target", "link"]) -> Any:
    """The profile of that name, or in that file, which is relative to the scenario's."""
    try:
        return load_profile(path.parent / name if name.endswith(".toml") or "/" in name else name, kind)
    except ConfigError as error:
        raise ScenarioError(f"{path}: {at} = {name!r}: {error}") from error


def _overridden(where: str, profile: Profile, changes: Mapping[str, Any], why: str) -> Profile:
    """``profile`` with some values replaced; their provenance says so."""
    if not changes:
        return profile
    bare = msgspec.structs.replace(profile, provenance={}, path=None)
    plain = msgspec.to_builtins(bare)
    del plain["provenance"], plain["path"]
    leaves = dict(_leaves(changes))
    for at, value in leaves.items():
        node = plain
        *above, last = at.split(".")
        for step in above:
            if not isinstance(node.get(step), dict):
                node[step] = {}
            node = node[step]
        node[last] = value
    changed = convert(plain, type(profile), where, ScenarioError)
    origin = {**profile.provenance, **dict.fromkeys(leaves, Provenance("assumed", why))}
    return msgspec.structs.replace(changed, provenance=origin, path=profile.path)


def _leaves(changes: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in changes.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value


def assumed_in(profile: Profile) -> list[str]:
    """The keys of a profile whose values are assumed, overridden ones included."""
    return [at for at, origin in profile.provenance.items() if origin.provenance == "assumed"]


def _pair(path: Path, pair: str | Pair) -> Pair:
    if not isinstance(pair, str):
        return pair
    if pair == "demo":
        return ModelPair()
    if not pair.endswith(".toml"):
        raise ScenarioError(
            f"{path}: pair = {pair!r}: neither 'demo' nor a .toml file with the keys of [pair]; of records, foredraft "
            'fit-pair writes one, and [pair] kind = "recorded" says their texts again'
        )
    file = path.parent / pair
    plain = parse_toml(read_text(file, ScenarioError), file, ScenarioError)
    loaded: Pair = convert({"pair": plain}, _PairFile, file, ScenarioError).pair
    return loaded


class _PairFile(Table, frozen=True):
    pair: Pair


def with_traffic(scenario: Scenario, path: Path) -> Scenario:
    """The scenario with the requests of a file, which come as they came where it tells that. Raises ScenarioError."""
    traffic = read_traffic(path)
    arrivals = AsRecorded() if traffic.arrived_s else scenario.workload.arrivals
    work = msgspec.structs.replace(scenario.workload, traffic=str(path.absolute()), arrivals=arrivals)
    changed = replace(scenario, file=msgspec.structs.replace(scenario.file, workload=work), traffic=traffic)
    check_workload(changed)
    return changed
