"""One, four and eight edges on one target that batches: real ones beside the same simulated from its measured profile.

The edges draft nothing (``cloud``) and have a process of a few MB, so that what is compared is the target: who shares
which forward, and what that takes. Prompts are random tokens, so that no cache knows them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

import msgspec

from foredraft.bench.child import Child, child
from foredraft.errors import ForedraftError
from foredraft.observe.aggregate import percentile
from foredraft.profiles import LinkProfile, TargetProfile, load_profile, seconds
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.scenario_file import (
    Closed,
    CloudTable,
    EdgeTable,
    Override,
    ScenarioFile,
    Workload,
    length_of,
)
from foredraft_sim.tokens.synthetic import SyntheticPair
from foredraft_sim.validate.measured import measured_profile
from foredraft_sim.validate.sessions import Cores

MOST_OFF: Final = 0.10
"""How far the simulation may be off, in tokens per second and in the 90th percentile of the first token."""

_SEED: Final = 1
_TOKENS, _CONTEXTS = "1,2,5", "16,64,160"
_LINK_S: Final = 4.0
_BATCH: Final = (8, 8 * 64, 8)  # rows, context and sequences of the forward by which two profiles are compared

Tell = Callable[[str, float], None]
"""Told what is being done, and which share of the whole is behind."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """What is run. Requests take turns with the lengths; ``think_s``: before each, on average.

    ``runs``: how often, really and simulated. ``repeats``: calls of each kind in the profile; ``batches``: of how many.
    """

    model: str = "demo"
    threads: int = 1
    edges: tuple[int, ...] = (1, 4, 8)
    requests: int = 10
    prompt_tokens: tuple[int, ...] = (24, 150, 9, 60, 90, 33, 128)
    new_tokens: tuple[int, ...] = (20, 12, 28, 16, 24)
    think_s: float = 0.1
    runs: int = 3
    repeats: int = 9
    batches: str = "1,2,4,8"

    def asked(self, edges: int) -> int:
        """How many requests there are with so many edges."""
        return self.requests * max(2, edges)


class Ran(msgspec.Struct, frozen=True):
    """What came of one run."""

    tokens_per_s: float
    ttft_p90_s: float
    tpot_p90_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Compared:
    """So many edges, really and simulated, in every run.

    Of tokens per second the fastest run counts, since whatever else a machine does only takes time; of the 90th
    percentiles, which few requests decide, the median one.
    """

    edges: int
    real: tuple[Ran, ...]
    simulated: tuple[Ran, ...]

    @property
    def speed_off(self) -> float:
        """Simulated over real tokens per second, less one."""
        return speed(self.simulated) / speed(self.real) - 1.0

    @property
    def ttft_off(self) -> float:
        """The same of the 90th percentile of the time to the first token."""
        return ttft_p90_s(self.simulated) / ttft_p90_s(self.real) - 1.0

    def missed(self) -> list[str]:
        """What is further off than it may be, in words."""
        told = {"tokens per second": self.speed_off, "p90 of the time to first token": self.ttft_off}
        return [
            f"{self.edges} edges at once: {name} off by {off:+.1%}, more than {MOST_OFF:.0%}"
            for name, off in told.items()
            if abs(off) > MOST_OFF
        ]


def speed(runs: Sequence[Ran]) -> float:
    """Tokens per second of the fastest run."""
    return max(one.tokens_per_s for one in runs)


def ttft_p90_s(runs: Sequence[Ran]) -> float:
    """The median run's 90th percentile of the time to the first token."""
    return median(one.ttft_p90_s for one in runs)


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, and the profile that was simulated from."""

    crowd: Crowd
    target: TargetProfile
    compared: tuple[Compared, ...]

    def missed(self) -> list[str]:
        """What is further off than it may be, in words."""
        return [said for one in self.compared for said in one.missed()]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.crowd.model,
            "bound": MOST_OFF,
            "edges": [
                msgspec.to_builtins(one) | {"speed_off": one.speed_off, "ttft_off": one.ttft_off}
                for one in self.compared
            ],
            "missed": self.missed(),
        }


def validate_crowd(crowd: Crowd, where: Cores, *, force: bool, tell: Tell = lambda what, share: None) -> Found:
    """Measure, run and simulate. Raises ConfigError (a machine too noisy), ForedraftError."""
    alone = crowd.threads == 1
    edge, cloud = (where.edge, where.cloud) if alone else (None, None)
    profiles: list[TargetProfile] = []
    real: dict[int, list[Ran]] = {edges: [] for edges in crowd.edges}
    tell("measuring batches", 0.0)
    profiles.append(measured_target(crowd, cloud, force=force))
    with stage(crowd, edge, cloud) as (url, asking):
        link = measured_link(edge, url)
        for run in range(crowd.runs + 1):
            for edges in crowd.edges:
                tell(f"{edges} edges, run {run}", 0.3 + 0.3 * run / (crowd.runs + 1))
                ran = really(crowd, edges, asking, run)
                if run:  # the first one loads what is loaded once
                    real[edges].append(ran)
    tell("measuring batches again", 0.6)
    profiles.append(measured_target(crowd, cloud, force=True))
    target = faster(profiles)
    tell("simulating edges", 0.9)
    compared = [
        Compared(
            edges, tuple(real[edges]), tuple(simulated(crowd, edges, target, link, run) for run in range(crowd.runs))
        )
        for edges in crowd.edges
    ]
    return Found(crowd, target, tuple(compared))


def measured_target(crowd: Crowd, core: int | None, *, force: bool) -> TargetProfile:
    """The target's profile, measured on one core. Raises ConfigError (a machine too noisy), ForedraftError."""
    command = ["device", "--role", "target", "--model", crowd.model, "--threads", str(crowd.threads)]
    command += [
        "--tokens",
        _TOKENS,
        "--contexts",
        _CONTEXTS,
        "--batches",
        crowd.batches,
        "--repeats",
        str(crowd.repeats),
    ]
    found = measured_profile(core, [*command, *(["--force"] if force else [])], "crowd-target")
    if not isinstance(found, TargetProfile):
        raise ForedraftError(f"a {found.kind} profile, where a target was measured")
    return found


def faster(profiles: Sequence[TargetProfile]) -> TargetProfile:
    """Of a target's profiles the one whose passes take less: what else a machine does only takes time."""
    return min(profiles, key=lambda one: seconds(one.target_pass, *_BATCH))


def measured_link(core: int | None, url: str) -> LinkProfile:
    """The link between the two processes."""
    found = measured_profile(core, ["link", "--server", url, "--seconds", str(_LINK_S)], "loopback")
    if not isinstance(found, LinkProfile):
        raise ForedraftError(f"a {found.kind} profile, where a link was measured")
    return found


@contextmanager
def stage(crowd: Crowd, edge: int | None, cloud: int | None) -> Iterator[tuple[str, Child]]:
    """A server, and the process of the edges."""
    serve = ("foredraft", "serve", "--json", "--port", "0", "--model", crowd.model, "--exact", "off")
    with child(cloud, *serve, "--threads", str(crowd.threads)) as server:
        url = server.read()["url"]
        with child(edge, "foredraft.bench.real_edges", url) as asking:
            yield url, asking


def really(crowd: Crowd, edges: int, asking: Child, run: int) -> Ran:
    """One run; each has prompts of its own, or caches would know them."""
    draw, asked = Random(f"{edges} edges, run {run}"), [list[dict[str, Any]]() for _ in range(edges)]
    for request in range(crowd.asked(edges)):
        prompt = length_of(crowd.prompt_tokens, _SEED, "prompt tokens", request)
        asked[request % edges].append(
            {
                "think_s": Closed(think_s=crowd.think_s).pause_s(_SEED, request),
                "tokens": [draw.randrange(10, 250) for _ in range(prompt)],
                "new_tokens": length_of(crowd.new_tokens, _SEED, "new tokens", request),
            }
        )
    said = asking.ask({"edges": asked})
    tokens = sum(one["new_tokens"] for requests in asked for one in requests)
    return Ran(tokens / said["duration_s"], percentile(said["ttft_s"], 90), percentile(said["tpot_s"], 90))


def simulated(crowd: Crowd, edges: int, target: TargetProfile, link: LinkProfile, luck: int) -> Ran:
    """The same in simulated time. Raises ForedraftError."""
    draft = load_profile("bench-6ms-draft", "draft")  # it drafts nothing
    chunk = target.prefill.range.new_tokens[1] if target.prefill is not None else 512
    pair = SyntheticPair(ranks=(0.5,), layers=target.model.layers)
    file = ScenarioFile(
        policies=("cloud",),
        edge=EdgeTable(profile=draft.name),
        cloud=CloudTable(profile=target.name, prefill_chunk=chunk),
        link=Override(profile=link.name),
        pair=pair,
        workload=Workload(
            requests=crowd.asked(edges),
            devices=edges,
            prompt_tokens=crowd.prompt_tokens,
            new_tokens=crowd.new_tokens,
            arrivals=Closed(think_s=crowd.think_s),
        ),
    )
    scenario = Scenario(Path("validate"), file, draft=draft, target=target, link=link, pair=pair)
    done = replicate(scenario, "cloud", _SEED, luck=luck)
    reports = [one.report for one in done.finished]
    tokens = sum(report.new_tokens for report in reports)
    ttft_s, tpot_s = [report.ttft_s for report in reports], [report.tpot_s for report in reports]
    return Ran(tokens / done.duration_s, percentile(ttft_s, 90), percentile(tpot_s, 90))


def spread(runs: Sequence[Ran]) -> str:
    """All runs in one line: tokens per second, and milliseconds to the first token at p90."""
    return ", ".join(f"{one.tokens_per_s:.1f}/{one.ttft_p90_s * 1e3:.0f}" for one in runs)
