"""One place of the benchmark: devices, link, pair and length of answer; and what a policy does there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from foredraft.edge.session_report import SessionReport
from foredraft.observe.bound import bound_s, knowing_bound_s
from foredraft.profiles import (
    Direction,
    DraftProfile,
    Line,
    LinkProfile,
    LinkRange,
    Model,
    Outage,
    Range,
    TargetProfile,
    load_profile,
    seconds,
)
from foredraft.profiles.strict import convert, parse_toml, read_text
from foredraft.protocol.sampling import NOISE
from foredraft_sim.errors import ScenarioError
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.scenario_file import (
    CloudTable,
    EdgeTable,
    Override,
    Rule,
    SamplingTable,
    ScenarioFile,
    Workload,
)
from foredraft_sim.tokens.synthetic import SyntheticPair

REFERENCE_FILE = Path(__file__).with_name("reference_pair.toml")
_ANY = Range(new_tokens=(0, 1 << 20), context=(0, 1 << 30))


def reference_pair() -> SyntheticPair:
    """The shipped reference pair."""
    plain = parse_toml(read_text(REFERENCE_FILE, ScenarioError), REFERENCE_FILE, ScenarioError)
    plain.pop("kind")
    return convert(plain, SyntheticPair, REFERENCE_FILE, ScenarioError)


def scaled_pair(acceptance: float) -> SyntheticPair:
    """The reference pair with another first rank; what that leaves is shared as the reference shares it."""
    pair = reference_pair()
    first, *tail = pair.ranks
    scale = (1.0 - acceptance) / (1.0 - first)
    return msgspec.structs.replace(pair, ranks=(acceptance, *(rank * scale for rank in tail)))


@dataclass(frozen=True, slots=True)
class Times:
    """A target and a draft by their times alone, all of them assumed.

    A pass takes ``pass_s`` up to ``flat_tokens``, then rises linearly, with as much again per
    ``flat_tokens`` more; a draft step takes ``step_s`` for up to 8 nodes.
    """

    pass_s: float
    flat_tokens: int
    step_s: float
    round_trip_s: float

    def target(self) -> TargetProfile:
        """As a profile."""
        per_token_s = self.pass_s / self.flat_tokens
        line = Line(base_s=self.pass_s, flat_tokens=self.flat_tokens, per_token_s=per_token_s, range=_ANY)
        return TargetProfile(
            kind="target", name="assumed", title="assumed", model=Model(name="pair", layers=32), target_pass=line
        )

    def draft(self) -> DraftProfile:
        """As a profile."""
        line = Line(base_s=self.step_s, flat_tokens=8, per_token_s=self.step_s / 8, range=_ANY)
        return DraftProfile(
            kind="draft", name="assumed", title="assumed", model=Model(name="pair", layers=2), draft_step=line
        )

    def link(self) -> LinkProfile:
        """As a profile: delay, and nothing else."""
        way = Direction(delay_s=self.round_trip_s / 2)
        limits = LinkRange(message_bytes=(0, 1 << 20))
        return LinkProfile(kind="link", name="assumed", title="assumed", up=way, down=way, range=limits)


def link_named(name: str) -> LinkProfile:
    """A link's profile by its name, or from a ``.toml`` file."""
    return load_profile(Path(name) if name.endswith(".toml") else name, "link")


def files_of_link(name: str) -> list[Path]:
    """The files that tell of a link which is not a shipped one: its profile and the traces that this names."""
    if not name.endswith(".toml"):
        return []
    link = link_named(name)
    return [Path(name), *(Path(name).parent / way.trace for way in (link.up, link.down) if way.trace is not None)]


@dataclass(frozen=True, slots=True)
class Shipped:
    """Devices by the names of shipped profiles, and a link by its name or file."""

    edge: str
    cloud: str
    line: str

    def target(self) -> TargetProfile:
        """The profile."""
        return load_profile(self.cloud, "target")

    def draft(self) -> DraftProfile:
        """The profile."""
        return load_profile(self.edge, "draft")

    def link(self) -> LinkProfile:
        """The profile."""
        return link_named(self.line)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a policy is tried. ``outage``: the link is out for 2 s after 1 s; "cut" also breaks it.

    ``acceptance``: how often the draft's first choice is accepted, by the rule ``rule`` (noise, rejection).
    """

    place: Times | Shipped
    acceptance: float = 0.58
    new_tokens: int | tuple[int, ...] = 256
    outage: str = ""
    rule: Rule = NOISE

    def scenario(self) -> Scenario:
        """The same as a scenario of the simulator."""
        link = self.place.link()
        if self.outage:
            out = Outage(start_s=1.0, duration_s=2.0, cuts=self.outage == "cut")
            link = msgspec.structs.replace(link, outages=(*link.outages, out))
        requests = 1 if isinstance(self.new_tokens, int) else len(self.new_tokens)
        file = ScenarioFile(
            policies=("auto",),
            edge=EdgeTable(profile="", retries=64),
            cloud=CloudTable(profile=""),
            link=Override(profile=""),
            pair="",
            workload=Workload(requests=requests, prompt_tokens=1, new_tokens=self.new_tokens),
            sampling=SamplingTable(acceptance=self.rule),
        )
        pair = scaled_pair(self.acceptance)
        return Scenario(Path("bench policies"), file, self.place.draft(), self.place.target(), link, pair)

    def pass_s(self, nodes: int) -> float:
        """A target pass over so many draft nodes, at a middling context."""
        tokens = self.new_tokens if isinstance(self.new_tokens, int) else max(self.new_tokens)
        return seconds(self.place.target().target_pass, nodes + 1, tokens // 2)

    def bounds_s(self) -> tuple[float, float]:
        """Per token: the least with this draft, and with one that always knows."""
        most = 31
        ranks = scaled_pair(self.acceptance).ranks
        return bound_s(ranks, self.pass_s, most), knowing_bound_s(self.pass_s, most)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy did somewhere, per committed token, over all requests; ``e2e_s`` is in all.

    ``missed``: the share of requests that were not complete at their deadline.
    """

    e2e_s: float
    tokens: int
    passes: float
    verified: float
    bytes_up: float
    bytes_down: float
    target_s: float
    draft_s: float
    energy_j: float | None = None
    cost_usd: float | None = None
    missed: float = 0.0

    @property
    def token_s(self) -> float:
        """End to end seconds per token."""
        return self.e2e_s / self.tokens


def try_policy(setting: Setting, policy: str, seed: int) -> Outcome:
    """Run one policy there, with one seed: all policies meet the same luck."""
    scenario = setting.scenario()
    done = replicate(scenario, policy, seed)
    found = outcome_of([one.report for one in done.finished])
    edge, cloud = scenario.draft.cost, scenario.target.cost
    energy_j = cost_usd = None
    if edge.active_w is not None and edge.idle_w is not None:
        idle_s = max(0.0, found.token_s - found.draft_s)
        energy_j = found.draft_s * edge.active_w + idle_s * edge.idle_w
    if cloud.price_usd_per_hour is not None:
        cost_usd = done.servers_busy_s / 3600.0 * cloud.price_usd_per_hour / found.tokens
    return replace(found, energy_j=energy_j, cost_usd=cost_usd)


def outcome_of(reports: Sequence[SessionReport]) -> Outcome:
    """What these texts came to, but for energy, money and deadlines."""
    tokens = sum(report.new_tokens for report in reports)
    return Outcome(
        e2e_s=sum(report.e2e_s for report in reports),
        tokens=tokens,
        passes=sum(report.passes for report in reports) / tokens,
        verified=sum(report.drafted + report.passes for report in reports) / tokens,
        bytes_up=sum(report.bytes_up for report in reports) / tokens,
        bytes_down=sum(report.bytes_down for report in reports) / tokens,
        target_s=sum(report.target_s for report in reports) / tokens,
        draft_s=sum(report.draft_s for report in reports) / tokens,
    )
