"""A robot's decisions with deadlines: which share of them each policy misses, over which link.

The tokens are the reference pair's. A deadline is so many times the median of ``cloud`` on the same devices over the
same link, over all decisions of the seeds 1 to 3, none of which had a deadline.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Final

from foredraft.profiles import load_profile
from foredraft_sim.bench.policies.setting import Outcome, link_named, outcome_of, reference_pair
from foredraft_sim.scenario.finished import Finished
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.scenario_file import Closed, CloudTable, EdgeTable, Override, ScenarioFile, Workload

ROBOT: Final = ("orin-go2-qwen2-vl-2b", "a100-qwen2-vl-7b")
"""The seed's: 72 ms a draft step, 620 ms a pass."""
FAST: Final = ("jetson-nano-vicuna-68m", "a100-llama2-7b")
"""A small device, and a cloud whose passes are much shorter than a round trip over a cellular link."""
LENGTHS: Final = (12, 40, 20, 64, 28, 16, 48, 24, 80, 32)
"""Tokens of decisions, one after another: most are short, and a few say much more. ASSUMED; the median is 30."""

PROMPT_TOKENS: Final = 32
THINK_S: Final = 1.0
BASELINE_SEEDS: Final = (1, 2, 3)
NOT_TOLD: Final = "auto, not told"
"""``auto`` without a word of the deadline: whatever was complete by then counts as in time."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """Decisions over a link (a profile's name, or its file), wanted within so many times the median of ``cloud``.

    ``devices``: the profiles of the edge and of the cloud.
    """

    link: str
    times: float
    requests: int = 40
    devices: tuple[str, str] = ROBOT

    def scenario(self, deadline_s: float | None) -> Scenario:
        """The same as a scenario of the simulator: one robot, which keeps its connection and what it has learned."""
        edge, cloud = self.devices
        file = ScenarioFile(
            policies=("auto",),
            edge=EdgeTable(profile=edge, retries=64, connected=True, learns=True),
            cloud=CloudTable(profile=cloud),
            link=Override(profile=self.link),
            pair="",
            workload=Workload(
                requests=self.requests,
                prompt_tokens=PROMPT_TOKENS,
                new_tokens=LENGTHS,
                arrivals=Closed(think_s=THINK_S),
                deadline_s=deadline_s,
            ),
        )
        draft, target = load_profile(edge, "draft"), load_profile(cloud, "target")
        return Scenario(Path("bench policies"), file, draft, target, link_named(self.link), reference_pair())


def cloud_median_s(where: Decisions) -> float:
    """End to end seconds of a decision that the cloud streams there, in the middle of all."""
    return _cloud_median_s(replace(where, times=1.0))


@lru_cache(maxsize=64)
def _cloud_median_s(where: Decisions) -> float:
    scenario = where.scenario(None)
    taken_s = [one.report.e2e_s for seed in BASELINE_SEEDS for one in replicate(scenario, "cloud", seed).finished]
    return median(taken_s)


def try_decisions(where: Decisions, policy: str, seed: int) -> Outcome:
    """Run one policy there, with one seed: all policies meet the same luck. Times are of what was in time."""
    deadline_s = where.times * cloud_median_s(where)
    told = policy != NOT_TOLD
    done = replicate(where.scenario(deadline_s if told else None), policy if told else "auto", seed)
    late = [_late(one, deadline_s) for one in done.finished]
    return replace(outcome_of([one.report for one in done.finished]), missed=sum(late) / len(late))


def _late(one: Finished, deadline_s: float) -> bool:
    return one.missed or one.report.e2e_s > deadline_s
