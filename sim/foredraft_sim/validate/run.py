"""The whole of a validation: measure, fit on some prompts, compare on others."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from foredraft.profiles import LinkProfile
from foredraft_sim.validate.calibrate import (
    Correction,
    corrected,
    opening_excess_s,
    pass_excess_s,
    round_excess_s,
)
from foredraft_sim.validate.plan import GAMMA, SEED, Plan
from foredraft_sim.validate.sessions import (
    Cores,
    Profiles,
    Session,
    Stage,
    cores,
    measure_devices,
    scenario_of,
    simulate,
    stage,
)
from foredraft_sim.validate.verdict import Verdict, verdict_of

Tell = Callable[[str, float], None]
"""Told what is being done, and which share of the whole is behind."""

_FIT_POLICIES: Final = ("cloud", f"sync:gamma={GAMMA}", f"seed:gamma={GAMMA}")
_EXITS: Final = 2  # of the bundled target
_FIT_TURNS: Final = 4  # each takes up what the one before left, where the end of the text cuts rounds short


@dataclass(frozen=True, slots=True)
class Validation:
    """What was found, and what it rests on. ``profiles``: as they were used, corrections included."""

    plan: Plan
    cores: Cores
    profiles: Profiles
    real: tuple[Session, ...]
    simulated: tuple[Session, ...]
    verdict: Verdict
    load: str


def validate(plan: Plan, *, force: bool = False, tell: Tell = lambda what, share: None) -> Validation:
    """Run it. Raises ConfigError (a machine too noisy), ModelError, ForedraftError."""
    where, before = cores(), load_now()
    tell("measuring both ends", 0.0)
    target, draft = measure_devices(plan, where, force=force)
    with stage(plan, where) as running:
        links: dict[str, LinkProfile] = {}
        for number, way in enumerate(plan.ways):
            tell(f"measuring the link {way}", 0.1 + 0.1 * number / len(plan.ways))
            links[way] = running.measure_link(way)
        profiles = Profiles(target, draft, links)
        tell("sessions to fit on", 0.2)
        fitted = _real(plan, running, profiles, plan.fit_prompts, _FIT_POLICIES, list(plan.ways)[:1], tell, (0.2, 0.3))
        ways = list(plan.ways)
        tell("sessions to compare with", 0.3)
        real = _real(plan, running, profiles, plan.report_prompts, plan.policies, ways, tell, (0.3, 0.7))
        tell("the same once more", 0.7)
        again = _real(plan, running, profiles, plan.report_prompts, plan.policies, ways[:1], tell, (0.7, 0.8))
    tell("fitting", 0.8)
    correction = fit(plan, profiles, fitted)
    profiles = corrected(profiles, correction)
    simulated: list[Session] = []
    for number, (way, policy) in enumerate(cells := [(w, p) for w in plan.ways for p in plan.policies]):
        tell(f"simulating {policy} over {way}", 0.85 + 0.15 * number / len(cells))
        simulated += simulate(plan, profiles, way, policy, plan.report_prompts)
    found = verdict_of(real, simulated, correction, again)
    return Validation(plan, where, profiles, tuple(real), tuple(simulated), found, f"before, {before}")


def load_now() -> str:
    """How busy the machine is, in words."""
    if not hasattr(os, "getloadavg"):  # Windows
        return "load unknown"
    return f"{os.getloadavg()[0]:.1f} runnable in the last minute on {os.cpu_count()} cores"


def _real(
    plan: Plan,
    running: Stage,
    profiles: Profiles,
    prompts: Sequence[str],
    policies: Sequence[str],
    ways: Sequence[str],
    tell: Tell,
    span: tuple[float, float],
) -> list[Session]:
    """Real sessions: each policy with each prompt over each link, in turns that begin with the next policy."""
    scenario = scenario_of(plan, profiles, ways[0], prompts)
    done: list[Session] = []
    for way in ways:
        running.run(way, policies[0], prompts, 0, seed=0)  # what the first session of a process loads
        for turn in range(len(prompts)):
            for place in (*range(turn % len(policies), len(policies)), *range(turn % len(policies))):
                number = (turn + place) % len(prompts)
                done.append(
                    running.run(way, policies[place], prompts, number, seed=scenario.sampling(SEED, number).seed)
                )
                share = len(done) / (len(ways) * len(prompts) * len(policies))
                tell(f"{policies[place]} over {way}", span[0] + (span[1] - span[0]) * share)
    return done


def fit(plan: Plan, profiles: Profiles, real: Sequence[Session]) -> Correction:
    """The correction under which the simulation meets these sessions."""
    way = next(iter(plan.ways))
    by_policy = {policy: [one for one in real if one.policy == policy] for policy in _FIT_POLICIES}

    def simulated(policy: str, so_far: Correction) -> list[Session]:
        return simulate(plan, corrected(profiles, so_far), way, policy, plan.fit_prompts)

    alone, rounds, hinted = _FIT_POLICIES
    found = Correction()
    for _ in range(_FIT_TURNS):
        found = replace(found, pass_s=found.pass_s + pass_excess_s(by_policy[alone], simulated(alone, found)))
    for _ in range(_FIT_TURNS):
        excess_s = round_excess_s(by_policy[rounds], simulated(rounds, found)) / GAMMA
        found = replace(found, step_s=found.step_s + excess_s)
    for _ in range(_FIT_TURNS):
        excess_s = round_excess_s(by_policy[hinted], simulated(hinted, found)) / _EXITS
        found = replace(found, exit_s=found.exit_s + excess_s)
    return replace(found, opening_s=opening_excess_s(by_policy[alone], simulated(alone, found)))
