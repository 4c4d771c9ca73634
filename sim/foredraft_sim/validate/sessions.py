"""The same sessions, really and simulated: what is compared."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from foredraft.bench.child import Child, child
from foredraft.bench.real import places
from foredraft.edge.session_report import SessionReport
from foredraft.errors import ForedraftError
from foredraft.links.emulation import proxies
from foredraft.profiles import DraftProfile, LinkProfile, Profile, TargetProfile, load_profile
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.scenario_file import (
    CloudTable,
    EdgeTable,
    ModelPair,
    Override,
    SamplingTable,
    ScenarioFile,
    Workload,
)
from foredraft_sim.validate.measured import measured_profile
from foredraft_sim.validate.plan import SEED, TEMPERATURE, Plan

_CONTEXTS: Final = "1,64,192"
_TARGET_TOKENS: Final = "1,2,3,5,9,17,33"
_DRAFT_TOKENS: Final = "1,2,3,5,8,16"


@dataclass(frozen=True, slots=True)
class Session:
    """One session: where it ran and what came of it. ``prompt``: its number in its list."""

    way: str
    policy: str
    prompt: int
    ttft_s: float
    tpot_s: float
    e2e_s: float
    passes: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Profiles:
    """What the simulation knows of this machine."""

    target: TargetProfile
    draft: DraftProfile
    links: dict[str, LinkProfile]


class Stage:
    """The cloud's process, one edge process per link, each on its core, and the proxies between; from ``stage``."""

    def __init__(self, plan: Plan, edges: dict[str, Child], fronts: dict[str, str], cores: "Cores") -> None:
        self._plan, self._edges, self._fronts, self._cores = plan, edges, fronts, cores

    def run(
        self, way: str, policy: str, prompts: Sequence[str], number: int, seed: int, record: Path | None = None
    ) -> Session:
        """One real session with prompt ``number``; ``record``: where to. Raises ForedraftError."""
        said: dict[str, Any] = self._edges[way].ask(
            {
                "prompt": prompts[number],
                "policy": policy,
                "max_new_tokens": self._plan.new_tokens,
                "temperature": TEMPERATURE,
                "seed": seed,
            }
            | ({} if record is None else {"record": str(record)})
        )
        return Session(
            way,
            policy,
            number,
            said["ttft_s"],
            said["tpot_s"],
            said["e2e_s"],
            said["passes"],
            tuple(said["tokens"]),
        )

    def measure_link(self, way: str) -> LinkProfile:
        """The link as the edge's core sees it. Raises ConfigError, ForedraftError."""
        command = ["link", "--server", self._fronts[way], "--seconds", str(self._plan.link_s)]
        found = measured_profile(self._cores.edge, command, "link")
        if not isinstance(found, LinkProfile):
            raise ForedraftError(f"a {found.kind} profile, where a link was measured")
        return found


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the two ends run; None where the system cannot pin. ``said``: that in words."""

    edge: int | None
    cloud: int | None
    said: str


def cores() -> Cores:
    """A core for each end, as far as there are two."""
    return Cores(*places())


@contextmanager
def stage(plan: Plan, where: Cores) -> Iterator[Stage]:
    """Everything that real sessions need, until the block ends. Raises ForedraftError, ConfigError.

    No session finds in the cloud what another one left there, since no simulated one does. The proxies run beside the
    edge: on the cloud's core they would take a fifth of its passes' time.
    """
    serve = ["foredraft", "serve", "--json", "--port", "0", "--model", plan.model, "--threads", "1"]
    serve += ["--pace", plan.target, "--no-prefix-cache"]
    with ExitStack() as stack:
        url = stack.enter_context(child(where.cloud, *serve)).read()["url"]
        fronts, edges = {}, {}
        for name, way in plan.ways.items():
            [(fronts[name], _)] = stack.enter_context(proxies([url], way.up, way.down, where.edge))
            asked = (fronts[name], plan.draft_model, plan.draft)
            edges[name] = stack.enter_context(child(where.edge, "foredraft.bench.real_edge", *asked))
        yield Stage(plan, edges, fronts, where)


def measure_devices(plan: Plan, where: Cores, *, force: bool) -> tuple[TargetProfile, DraftProfile]:
    """Profiles of both ends, each measured on its core. Raises ConfigError on a machine that is too noisy."""
    if plan.paced:
        return load_profile(plan.target, "target"), load_profile(plan.draft, "draft")
    common = ["--contexts", _CONTEXTS, "--repeats", str(plan.repeats), *(["--force"] if force else [])]

    def measured(core: int | None, role: str, model: str, tokens: str) -> Profile:
        what = ["device", "--role", role, "--model", model, "--threads", "1", "--tokens", tokens]
        return measured_profile(core, [*what, *common], f"validate-{role}")

    target = measured(where.cloud, "target", plan.model, _TARGET_TOKENS)
    draft = measured(where.edge, "draft", plan.draft_model, _DRAFT_TOKENS)
    if not isinstance(target, TargetProfile) or not isinstance(draft, DraftProfile):
        raise ForedraftError("the measured profiles are of the wrong kind")
    return target, draft


def scenario_of(plan: Plan, profiles: Profiles, way: str, prompts: Sequence[str]) -> Scenario:
    """The sessions over one link, as a scenario: one device, one server, one request per prompt."""
    pair = ModelPair(plan.model, plan.draft_model)
    file = ScenarioFile(
        policies=plan.policies,
        edge=EdgeTable(profile=profiles.draft.name, connected=True),
        cloud=CloudTable(profile=profiles.target.name),
        link=Override(profile=way),
        pair=pair,
        workload=Workload(requests=len(prompts), prompts=tuple(prompts), new_tokens=plan.new_tokens, end_marks=False),
        sampling=SamplingTable(temperature=TEMPERATURE),
    )
    return Scenario(
        Path("validate"),
        file,
        draft=profiles.draft,
        target=profiles.target,
        link=profiles.links[way],
        pair=pair,
    )


def simulate(
    plan: Plan, profiles: Profiles, way: str, policy: str, prompts: Sequence[str], *, first: int = 0, luck: int = 0
) -> list[Session]:
    """The sessions of one policy over one link, in simulated time. Raises ForedraftError.

    ``first``: the number of the first of these prompts among the plan's. ``luck``: of the link and the devices.
    """
    done = replicate(scenario_of(plan, profiles, way, prompts), policy, SEED, texts=True, luck=luck)
    return [_session(way, policy, first + one.request, one.report) for one in done.finished]


def _session(way: str, policy: str, number: int, report: SessionReport) -> Session:
    return Session(way, policy, number, report.ttft_s, report.tpot_s, report.e2e_s, report.passes, tuple(report.tokens))
