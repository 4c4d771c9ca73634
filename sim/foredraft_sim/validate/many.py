"""Many edges on one target, really and simulated: what they get in all, and how long the slowest tenth waits.

All begin at once, each with a prompt that the server has not seen, and the target writes alone (``cloud``), in
forwards that they share. The simulation rests on a profile of such forwards (``profile device --batches``), and knows
of the ends what the sessions of one edge have told (``calibrate``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

import msgspec

from foredraft.bench.child import Child
from foredraft.profiles import TargetProfile
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario_file import Workload
from foredraft_sim.validate.calibrate import Correction, corrected
from foredraft_sim.validate.plan import SEED, TEMPERATURE, Plan
from foredraft_sim.validate.sessions import Profiles, scenario_of

MOST_OFF: Final = 0.10
SLOW: Final = 0.9
"""Of the sessions, how many have their first token by then."""


@dataclass(frozen=True, slots=True)
class Together:
    """So many edges at once: tokens per second of all, and when nine tenths have their first token."""

    edges: int
    tokens_per_s: float
    slow_ttft_s: float


@dataclass(frozen=True, slots=True)
class Many:
    """The same edges, really and simulated."""

    real: Together
    simulated: Together

    @property
    def off(self) -> tuple[float, float]:
        """How far the simulation is from reality, of both figures, as shares with their sign."""
        real, simulated = self.real, self.simulated
        return simulated.tokens_per_s / real.tokens_per_s - 1.0, simulated.slow_ttft_s / real.slow_ttft_s - 1.0

    def missed(self) -> list[str]:
        """Which targets are missed, in words."""
        names = ("tokens per second", f"p{SLOW * 100:.0f} of the first token")
        return [
            f"{self.real.edges} edges at once: {name} off by {off:+.1%}, more than {MOST_OFF:.0%}"
            for name, off in zip(names, self.off, strict=True)
            if abs(off) > MOST_OFF
        ]


def real_together(plan: Plan, edges: Child) -> list[Together]:
    """Each number of edges several times, in turns; the medians. Raises ForedraftError."""
    found: dict[int, list[Together]] = {count: [] for count in plan.edges}
    for turn in range(plan.least_runs + 1):
        for count, runs in found.items():
            asked = {"prompts": prompts_of(plan, count, turn), "max_new_tokens": plan.new_tokens}
            said = edges.ask(asked | {"temperature": TEMPERATURE, "seed": SEED})
            if turn:  # the first session of a process loads what the others find
                runs.append(_together(said["sessions"]))
    return [_typical(runs) for runs in found.values()]


def simulated_together(
    plan: Plan, profiles: Profiles, batched: TargetProfile, way: str, correction: Correction
) -> list[Together]:
    """The same in simulated time, each with its own luck; the medians. Raises ForedraftError."""
    known = corrected(replace(profiles, target=batched), replace(correction, opening_s=0.0, step_s=0.0))
    found = []
    for count in plan.edges:
        runs = []
        for turn in range(1, plan.least_runs + 1):
            prompts = prompts_of(plan, count, turn)
            scenario = scenario_of(plan, known, way, prompts)
            workload = Workload(
                requests=count, devices=count, prompts=prompts, new_tokens=plan.new_tokens, end_marks=False
            )
            scenario = replace(scenario, file=msgspec.structs.replace(scenario.file, workload=workload))
            done = replicate(scenario, "cloud", SEED, luck=turn)
            runs.append(_together([msgspec.to_builtins(one.report) for one in done.finished]))
        found.append(_typical(runs))
    return found


def prompts_of(plan: Plan, count: int, turn: int) -> tuple[str, ...]:
    """A prompt for each edge, new in each turn: what a server has seen before, it does not read again."""
    prompts = plan.fit_prompts + plan.report_prompts
    return tuple(f"# {count}.{turn}.{edge}\n{prompts[edge % len(prompts)]}" for edge in range(count))


def _together(sessions: Sequence[dict[str, Any]]) -> Together:
    first_s = sorted(one["ttft_s"] for one in sessions)
    tokens = sum(one["new_tokens"] for one in sessions)
    slow = first_s[min(int(SLOW * len(first_s)), len(first_s) - 1)]
    return Together(len(sessions), tokens / max(one["e2e_s"] for one in sessions), slow)


def _typical(runs: Sequence[Together]) -> Together:
    return Together(runs[0].edges, median(one.tokens_per_s for one in runs), median(one.slow_ttft_s for one in runs))
