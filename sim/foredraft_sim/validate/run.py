"""The whole of a validation: measure, fit on some prompts, compare on others."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from random import Random
from typing import Final

from foredraft.profiles import DeviceProfile, LinkProfile, seconds
from foredraft.profiles.compute import call_curve
from foredraft_sim.validate.calibrate import (
    Correction,
    corrected,
    opening_excess_s,
    pass_excess_s,
    round_excess_s,
    token_excess_s,
)
from foredraft_sim.validate.crowd import Found, Tell
from foredraft_sim.validate.plan import GAMMA, SEED, Plan
from foredraft_sim.validate.repeats import Key, by_session, fastest_of, settled
from foredraft_sim.validate.replayed import recorded_and_replayed
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

_ALONE, _ROUNDS, _TALKATIVE = "cloud", f"sync:gamma={GAMMA}", "ahead"
_FIT_TURNS: Final = 3  # each takes up what the one before left, where the end of the text cuts rounds short
_TRIED_S: Final = 1e-4  # per message, to see how many of them hold up a token of ``ahead``
_MOST_MESSAGE_S: Final = 1e-3
_A_CALL: Final = (1, 64)  # new tokens and context, by which two measurements of a device are compared


@dataclass(frozen=True, slots=True)
class Validation:
    """What was found, and what it rests on.

    ``profiles``: as they were used, corrections included. ``unsettled``: real sessions of which no two runs agreed.
    ``crowd``: edges at once, where they were asked for.
    """

    plan: Plan
    cores: Cores
    profiles: Profiles
    real: tuple[Session, ...]
    simulated: tuple[Session, ...]
    verdict: Verdict
    unsettled: int
    load: str
    crowd: Found | None = None


def validate(plan: Plan, *, force: bool = False, tell: Tell = lambda what, share: None) -> Validation:
    """Run it. Raises ConfigError (a machine too noisy), ModelError, ForedraftError."""
    where, before = cores(), load_now()
    tell("measuring both ends", 0.0)
    target, draft = measure_devices(plan, where, force=force)
    with stage(plan, where) as running:
        first = Profiles(target, draft, _links(plan, running, tell, 0.1))
        ran = real_sessions(plan, running, first, tell)
        replayed = recorded_and_replayed(plan, running, first, lambda what, share: tell(what, 0.65 + 0.05 * share))
        links = _links(plan, running, tell, 0.7)
    tell("measuring both ends again", 0.75)
    target, draft = measure_devices(plan, where, force=True)  # disturbed or not, the other one may count
    profiles = quietest(first, Profiles(target, draft, links))
    runs = by_session(ran)
    real, repeats = fastest_of(runs)
    fitted = [one for one in real if one.prompt < len(plan.fit_prompts)]
    tell("fitting", 0.8)
    correction = fit(plan, profiles, fitted)
    profiles = corrected(profiles, correction)
    simulated, simulated_repeats = fastest_of(by_session(simulated_sessions(plan, profiles, runs, tell)))
    order = {cell: place for place, cell in enumerate(product(plan.ways, plan.policies))}
    reported = [one for one in real if one.prompt >= len(plan.fit_prompts)]
    reported.sort(key=lambda one: (order[one.way, one.policy], one.prompt))
    found = verdict_of(reported, simulated, correction, repeats, simulated_repeats, replayed)
    unsettled = sum(not settled(ones) for ones in runs.values())
    load = f"before, {before}"
    return Validation(plan, where, profiles, tuple(reported), tuple(simulated), found, unsettled, load)


def _links(plan: Plan, running: Stage, tell: Tell, share: float) -> dict[str, LinkProfile]:
    """Each link, measured."""
    links = {}
    for number, way in enumerate(plan.ways):
        tell(f"measuring the link {way}", share + 0.05 * number / len(plan.ways))
        links[way] = running.measure_link(way)
    return links


def quietest(*measured: Profiles) -> Profiles:
    """Of each device and link the measurement with the shorter calls and round trips: disturbances only add to them."""

    def call_s(device: DeviceProfile) -> float:
        return seconds(call_curve(device), *_A_CALL)

    return Profiles(
        min((one.target for one in measured), key=call_s),
        min((one.draft for one in measured), key=call_s),
        {way: min((one.links[way] for one in measured), key=_round_trip_s) for way in measured[0].links},
    )


def _round_trip_s(link: LinkProfile) -> float:
    return link.round_trip_s


def load_now() -> str:
    """How busy the machine is, in words."""
    if not hasattr(os, "getloadavg"):  # Windows
        return "load unknown"
    return f"{os.getloadavg()[0]:.1f} runnable in the last minute on {os.cpu_count()} cores"


def real_sessions(plan: Plan, running: Stage, profiles: Profiles, tell: Tell) -> list[Session]:
    """Real sessions: each policy with each prompt over each link, everything once and then what is not settled again.

    Shuffled, since a machine is slower after it was idle: sessions that wait much must not have company of their
    own kind.
    """
    ways, fits = list(plan.ways), len(plan.fit_prompts)
    scenario = scenario_of(plan, profiles, ways[0], plan.prompts)
    asked = [
        *((way, policy, number) for way, policy in fitted_to(plan) for number in range(fits)),
        *product(ways, plan.policies, range(fits, len(plan.prompts))),
    ]
    done: list[Session] = []
    for way in ways:
        running.run(way, _ALONE, plan.prompts, 0, seed=0)  # what the first session of a process loads
    for turn in range(plan.most_runs):
        if turn >= plan.least_runs:
            runs = by_session(done)
            asked = [one for one in asked if not settled(runs[one])]
        for count, (way, policy, number) in enumerate(Random(turn).sample(asked, len(asked)), 1):
            request = number if number < fits else number - fits  # as the simulation counts them
            seed = scenario.sampling(SEED, request).seed
            done.append(running.run(way, policy, plan.prompts, number, seed=seed))
            share = (turn + count / len(asked)) / plan.most_runs
            tell(f"{policy} over {way}, run {turn + 1}", 0.15 + 0.5 * share)
    return done


def simulated_sessions(
    plan: Plan, profiles: Profiles, runs: Mapping[Key, Sequence[Session]], tell: Tell
) -> Iterator[Session]:
    """The sessions to report on, each as often as it was really run, each time with other luck."""
    cells, first = list(product(plan.ways, plan.policies)), len(plan.fit_prompts)
    for number, (way, policy) in enumerate(cells):
        tell(f"simulating {policy} over {way}", 0.85 + 0.15 * number / len(cells))
        often = {prompt: len(runs[way, policy, prompt]) for prompt in range(first, len(plan.prompts))}
        for luck in range(max(often.values())):
            for one in simulate(plan, profiles, way, policy, plan.report_prompts, first=first, luck=luck):
                if luck < often[one.prompt]:
                    yield one


def fitted_to(plan: Plan) -> list[tuple[str, str]]:
    """The links and policies of the prompts to fit on: as many as are short, since short sessions vary most."""
    short = (_ALONE,) if plan.paced else (_ALONE, _TALKATIVE)  # an emulated device is not held up by messages
    ways = list(plan.ways)
    return [*product(ways, short), (ways[0], _ROUNDS)]


def fit(plan: Plan, profiles: Profiles, real: Sequence[Session]) -> Correction:
    """The correction under which the simulation meets these sessions."""
    runs = {(one.way, one.policy, one.prompt): one for one in real}

    def ways(policy: str) -> list[str]:
        return [way for way, fitted in fitted_to(plan) if fitted == policy]

    def theirs(policy: str) -> list[Session]:
        return [runs[way, policy, number] for way in ways(policy) for number in range(len(plan.fit_prompts))]

    def ours(policy: str, so_far: Correction) -> list[Session]:
        now = corrected(profiles, so_far)
        return [one for way in ways(policy) for one in simulate(plan, now, way, policy, plan.fit_prompts)]

    found = Correction()
    for _ in range(_FIT_TURNS):
        found = replace(found, pass_s=found.pass_s + pass_excess_s(theirs(_ALONE), ours(_ALONE, found)))
        excess_s = round_excess_s(theirs(_ROUNDS), ours(_ROUNDS, found)) / GAMMA
        found = replace(found, step_s=found.step_s + excess_s)
        if not plan.paced:
            found = replace(found, message_s=_message_s(theirs(_TALKATIVE), found, partial(ours, _TALKATIVE)))
    found = replace(found, pass_s=found.pass_s + pass_excess_s(theirs(_ALONE), ours(_ALONE, found)))
    return replace(found, opening_s=opening_excess_s(theirs(_ALONE), ours(_ALONE, found)))


def _message_s(real: Sequence[Session], found: Correction, simulated: Callable[[Correction], list[Session]]) -> float:
    """The time per message under which a token takes what it really took: one step of Newton's method."""
    now_s = token_excess_s(real, simulated(found))
    then_s = token_excess_s(real, simulated(replace(found, message_s=found.message_s + _TRIED_S)))
    messages = (now_s - then_s) / _TRIED_S  # that hold up a token
    if messages < 1.0:  # nothing to be seen of them
        return found.message_s
    return min(max(0.0, found.message_s + now_s / messages), _MOST_MESSAGE_S)
