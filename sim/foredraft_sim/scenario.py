"""Scenarios: who talks to whom over what, with which policies, about what, how often.

A TOML file names hardware profiles for the edge, the cloud and the link (by name, or by a path
relative to the file), the pair that says the tokens, the policies to compare, the workload and the
seeds. Numbers of a profile can be overridden; they count as assumed from then on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from foredraft.core.policy import Policy
from foredraft.core.sampling import Sampling
from foredraft.errors import ConfigError
from foredraft.policies import make_policy
from foredraft.profiles import (
    DraftProfile,
    LinkProfile,
    Profile,
    Provenance,
    TargetProfile,
    load_profile,
)
from foredraft.profiles.strict import convert, parse_toml, read_text
from foredraft_sim.channel import Channel
from foredraft_sim.errors import ScenarioError
from foredraft_sim.recorded import read_recording
from foredraft_sim.streams import Streams, key, uniform
from foredraft_sim.synthetic import SyntheticPair
from foredraft_sim.traces import read_trace

AtLeastOne = Annotated[int, Meta(ge=1, le=10_000_000)]
Seed = Annotated[int, Meta(ge=0)]
DAY_S: Final = 86_400.0

_SEED_BITS: Final = 62


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Uniform(_Table, frozen=True):
    """A whole number from ``least`` to ``most``, each as likely."""

    least: AtLeastOne
    most: AtLeastOne

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError(f"least must be at most most, not {self.least} and {self.most}")


Length = AtLeastOne | Annotated[tuple[AtLeastOne, ...], Meta(min_length=1)] | Uniform
"""One number for all requests, a list to go through again and again, or a range."""


class Override(_Table, frozen=True):
    """A profile, and numbers in it that this scenario puts in the place of the profile's."""

    profile: str
    override: dict[str, Any] = {}


class EdgeTable(Override, frozen=True):
    """The devices, all alike. ``retries``: how often a session tries again in a row."""

    retries: Annotated[int, Meta(ge=0, le=1_000_000)] = 8


class CloudTable(Override, frozen=True):
    """The servers, all alike. ``balance``: which of them takes a new connection.

    ``least_loaded`` is the one with the fewest open connections, the first of several;
    ``round_robin`` the next in turn.
    """

    servers: Annotated[int, Meta(ge=1, le=10_000)] = 1
    balance: Literal["least_loaded", "round_robin"] = "least_loaded"
    max_pass_nodes: Annotated[int, Meta(ge=1, le=256)] = 32


class ModelPair(_Table, frozen=True, tag_field="kind", tag="models"):
    """Real models that run here, in no simulated time: ``demo`` is the bundled pair; else folders or hub ids."""

    target: str = "demo"
    draft: str = "demo"
    exits: str = ""
    threads: Annotated[int, Meta(ge=0, le=1024)] = 1


class RecordedPair(_Table, frozen=True, tag_field="kind", tag="recorded"):
    """What real models said, from a file that ``foredraft simulate --record`` wrote."""

    file: str


Pair = SyntheticPair | ModelPair | RecordedPair


class AtOnce(_Table, frozen=True, tag_field="kind", tag="at_once"):
    """All requests are there at the start; each device takes its own one after another."""


class Poisson(_Table, frozen=True, tag_field="kind", tag="poisson"):
    """Requests come at random, ``rate_per_s`` on average over all devices."""

    rate_per_s: Annotated[float, Meta(gt=0.0, le=1e6)]


class Closed(_Table, frozen=True, tag_field="kind", tag="closed"):
    """Each device begins a request some time after its last one: exponential, ``think_s`` on average."""

    think_s: Annotated[float, Meta(ge=0.0, le=DAY_S)]


class Workload(_Table, frozen=True):
    """What is asked. Request r is device (r modulo devices)'s.

    A synthetic pair takes ``prompt_tokens``; a recorded one has its prompts. Models take ``prompts``,
    or ``prompts_file``: the lines of a .jsonl file (their "prompt", or the first of their "turns"),
    or one text.
    """

    requests: AtLeastOne = 1
    devices: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    prompt_tokens: Length = 32
    prompts: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    prompts_file: str = ""
    new_tokens: Length = 128
    end_marks: bool = True
    arrivals: AtOnce | Poisson | Closed = AtOnce()


class SamplingTable(_Table, frozen=True):
    """How the target samples; each request has a seed of its own, from the scenario's."""

    temperature: Annotated[float, Meta(ge=0.0, le=100.0)] = 0.0
    top_k: Annotated[int, Meta(ge=0)] = 0
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0


class ScenarioFile(_Table, frozen=True, kw_only=True):
    """What the file says. ``outside``: what happens to a call outside the range of its profile."""

    title: str = ""
    notes: str = ""
    policies: Annotated[tuple[str, ...], Meta(min_length=1)]
    seeds: AtLeastOne | Annotated[tuple[Seed, ...], Meta(min_length=1)] = 5
    outside: Literal["warn", "error"] = "warn"
    edge: EdgeTable
    cloud: CloudTable
    link: Override
    pair: str | SyntheticPair | ModelPair | RecordedPair
    workload: Workload = Workload()
    sampling: SamplingTable = SamplingTable()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario, with everything that its file names."""

    path: Path
    file: ScenarioFile
    draft: DraftProfile
    target: TargetProfile
    link: LinkProfile
    pair: Pair

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds; a count n means 1 to n."""
        seeds = self.file.seeds
        return tuple(range(1, seeds + 1)) if isinstance(seeds, int) else seeds

    @property
    def workload(self) -> Workload:
        """What is asked."""
        return self.file.workload

    def sampling(self, seed: int, request: int) -> Sampling:
        """The sampling of a request: the same luck whatever the policy."""
        table = self.file.sampling
        own = key(seed, f"request {request}") >> (64 - _SEED_BITS)
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
    scenario = Scenario(
        path,
        file,
        draft=_profile(path, "edge", file.edge, "draft"),
        target=_profile(path, "cloud", file.cloud, "target"),
        link=_profile(path, "link", file.link, "link"),
        pair=_pair(path, file.pair),
    )
    for spec in file.policies:
        scenario.policy(spec)
    _check_link(scenario)
    _check_workload(scenario)
    return scenario


def length_of(length: Length, seed: int, name: str, request: int) -> int:
    """A request's length, by its number alone."""
    if isinstance(length, int):
        return length
    if isinstance(length, Uniform):
        return length.least + int(uniform(seed, name, request) * (length.most + 1 - length.least))
    return length[request % len(length)]


def most_of(length: Length) -> int:
    """The longest that may come."""
    if isinstance(length, int):
        return length
    return length.most if isinstance(length, Uniform) else max(length)


def _profile(path: Path, table: str, named: Override, kind: Literal["draft", "target", "link"]) -> Any:
    """The profile that a table names, with what the table overrides."""
    name = named.profile
    try:
        profile = load_profile(path.parent / name if name.endswith(".toml") or "/" in name else name, kind)
    except ConfigError as error:
        raise ScenarioError(f"{path}: {table}.profile = {name!r}: {error}") from error
    return _overridden(f"{path}: {table}.override", profile, named.override, f"overridden in {path.name}")


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
        raise ScenarioError(f"{path}: pair = {pair!r}: neither 'demo' nor a .toml file with the keys of [pair]")
    file = path.parent / pair
    plain = parse_toml(read_text(file, ScenarioError), file, ScenarioError)
    loaded: Pair = convert({"pair": plain}, _PairFile, file, ScenarioError).pair
    return loaded


class _PairFile(_Table, frozen=True):
    pair: Pair


def _check_link(scenario: Scenario) -> None:
    """A link that could not be emulated is refused before anything runs."""
    link = scenario.link
    for name, direction in (("up", link.up), ("down", link.down)):
        try:
            trace = None
            if direction.trace is not None:
                folder = Path() if link.path is None else link.path.parent
                trace = read_trace(folder / direction.trace)
            Channel(direction, Streams(0), trace=trace, loss=link.loss)
        except ConfigError as error:
            named = scenario.file.link.profile
            raise ScenarioError(f"{scenario.path}: link.profile = {named!r}, {name}: {error}") from error


def _check_workload(scenario: Scenario) -> None:
    """What can be seen to be impossible before anything runs."""
    path, work = scenario.path, scenario.workload
    if isinstance(scenario.pair, ModelPair):
        if not work.prompts and not work.prompts_file:
            raise ScenarioError(f"{path}: workload.prompts is missing: models need texts (or workload.prompts_file)")
        return
    if work.prompts or work.prompts_file:
        kind = "synthetic" if isinstance(scenario.pair, SyntheticPair) else "recorded"
        name = "prompts" if work.prompts else "prompts_file"
        raise ScenarioError(f"{path}: workload.{name}: a {kind} pair reads no text; leave it out")
    if isinstance(scenario.pair, RecordedPair):
        _check_recording(scenario, scenario.pair)
        return
    longest = most_of(work.prompt_tokens) + most_of(work.new_tokens)
    if longest > scenario.pair.context:
        raise ScenarioError(
            f"{path}: workload: {longest} tokens of prompt and text are more than pair.context = "
            f"{scenario.pair.context}"
        )
    memory = scenario.target.memory
    if memory is not None:
        needed_bytes = memory.weights_bytes + longest * memory.cache_bytes_per_token
        if needed_bytes > memory.device_bytes:
            raise ScenarioError(
                f"{path}: workload: one request of {longest} tokens needs {needed_bytes:,} bytes on cloud.profile = "
                f"{scenario.file.cloud.profile!r}, which has {memory.device_bytes:,}: it could never begin"
            )


def _check_recording(scenario: Scenario, pair: RecordedPair) -> None:
    recording = read_recording(scenario.path.parent / pair.file)
    for number, text in enumerate(recording.texts, 1):
        ended = text.tokens[-1] in recording.models.stop_tokens and scenario.workload.end_marks
        if not ended and len(text.tokens) < most_of(scenario.workload.new_tokens):
            raise ScenarioError(
                f"{scenario.path}: workload.new_tokens: up to {most_of(scenario.workload.new_tokens)} tokens, and text "
                f"{number} of pair.file = {pair.file!r} has {len(text.tokens)}"
            )
