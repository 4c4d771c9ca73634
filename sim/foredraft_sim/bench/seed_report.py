"""The seed paper's claims beside simulated figures. ``examples/seed_report.py`` prints it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from foredraft.edge.state import EdgeState
from foredraft.edge.step import VerifyParams
from foredraft.policies.cloud import CloudPolicy
from foredraft.profiles import Line, Range
from foredraft_sim.bench.seed_search import BASELINES, FURTHER, LOWER, READINGS, Baseline, Machine, consistent, machines
from foredraft_sim.scenario.replications import replicate_all
from foredraft_sim.scenario.results import interval
from foredraft_sim.scenario.scenario import Scenario, assumed_in
from foredraft_sim.tokens.synthetic import SyntheticPair

PER_TOKEN: Final = "foredraft_sim.bench.seed_report:PerTokenPolicy"
ROBOT_CLAIM: Final = 1.21


@dataclass(frozen=True, slots=True)
class PerTokenPolicy(CloudPolicy):
    """The cloud alone, asked for one token at a time: a round trip for each. What a baseline without streaming is."""

    name: str = "cloud, per token"

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Decode one token, then wait to be asked again."""
        return VerifyParams(alone_until=state.position + 1)


@dataclass(frozen=True, slots=True)
class Simulated:
    """Latency per token of one policy (end to end over tokens, mean over the seeds), by seed."""

    policy: str
    token_ms: float
    by_seed: tuple[float, ...]

    def speed_against(self, other: "Simulated") -> tuple[float, tuple[float, float] | None]:
        """How many times as fast, with a 95% interval over the seeds."""
        speeds = [theirs / ours for theirs, ours in zip(other.by_seed, self.by_seed, strict=True)]
        return sum(speeds) / len(speeds), interval(speeds)


def simulated(scenario: Scenario, policies: Sequence[str]) -> dict[str, Simulated]:
    """Time per output token after the first, so that the prompt is left out; by policy."""
    found: dict[str, Simulated] = {}
    done = replicate_all(scenario, policies, scenario.seeds)
    for policy in policies:
        by_seed = tuple(
            sum(finished.report.tpot_s for finished in one.finished) / len(one.finished)
            for one in done
            if one.policy == policy
        )
        found[policy] = Simulated(policy, 1e3 * sum(by_seed) / len(by_seed), by_seed)
    return found


def robot_lines(scenario: Scenario, gamma: int = 4) -> list[str]:
    """The robot: published times, simulated policies, and the claim of a 21% speedup."""
    sync, seed = f"sync:gamma={gamma}", f"seed:gamma={gamma}"
    found = simulated(scenario, ["cloud", PER_TOKEN, sync, seed])
    lines = [
        scenario.file.title,
        f"claim [published]: {ROBOT_CLAIM:.2f}x of cloud autoregressive decoding; which baseline that is is unknown",
        "",
        f"{'policy':24} {'ms per token':>13} {'x of streamed':>22} {'x of one round trip per token':>31}",
    ]
    for policy, name in (("cloud", "cloud, streamed"), (PER_TOKEN, "cloud, per token"), (sync, sync), (seed, seed)):
        against = [_with_interval(*found[policy].speed_against(found[other])) for other in ("cloud", PER_TOKEN)]
        lines.append(f"{name:24} {found[policy].token_ms:13.1f} {against[0]:>22} {against[1]:>31}")
    return [*lines, "", *_verdict(found[sync], found[seed], found["cloud"]), *assumptions(scenario)]


def _verdict(sync: Simulated, seed: Simulated, cloud: Simulated) -> list[str]:
    speeds = sync.speed_against(cloud)[0], seed.speed_against(cloud)[0]
    place = "above" if min(speeds) > ROBOT_CLAIM else "below" if max(speeds) < ROBOT_CLAIM else "on both sides of"
    return [
        f"Against streaming, sync and seed come out at {speeds[0]:.2f}x and {speeds[1]:.2f}x, {place} the claimed "
        f"{ROBOT_CLAIM:.2f}x. The claim needs 2.01 tokens per synchronous round [derived], or 1.68 against a",
        "baseline of one round trip per token. The acceptance, which decides it, is not published; ours is assumed.",
    ]


def assumptions(scenario: Scenario) -> list[str]:
    """Which inputs are assumed."""
    lines = ["ASSUMED:"]
    for profile in (scenario.draft, scenario.target, scenario.link):
        lines.append(f"  {profile.name}: {', '.join(assumed_in(profile)) or 'nothing'}")
    if isinstance(scenario.pair, SyntheticPair):
        lines.append(f"  pair: ranks {list(scenario.pair.ranks)}, exits {[list(one) for one in scenario.pair.exits]}")
    return lines


def nano_lines(scenario: Scenario) -> list[str]:
    """The Nano: which points of the brackets are consistent with both claims, and what the code does there."""
    total = sum(1 for _ in machines())
    lines = [
        scenario.file.title,
        "claims [published]: up to 35% lower latency than the cloud alone; a further 11% by preemptive drafting",
        f"searched by closed forms: {total:,} points of the brackets of draft step, pass, round trip, acceptance and",
        f"gamma; {LOWER:.0%} within a point, and no more than every hint right for the {FURTHER:.0%}",
        "",
    ]
    for baseline in BASELINES:
        for prediction in READINGS:
            found = consistent(baseline, prediction)
            lines += [f"baseline {baseline}; {prediction}: {len(found) or 'NONE'} of {total:,}"]
            if found:
                lines += [*_ranges(found), *_tried(scenario, baseline, found)]
            lines.append("")
    return [*lines, *assumptions(scenario)]


def _ranges(found: Sequence[Machine]) -> list[str]:
    """Between which values of each bracket they lie."""

    def span(name: str) -> str:
        values = [getattr(machine, name) for machine in found]
        return f"{min(values):.3g} to {max(values):.3g}"

    return [
        f"  draft step {span('draft_step_ms')} ms, pass {span('pass_ms')} ms, round trip {span('round_trip_ms')} ms, "
        f"acceptance {span('acceptance')}, gamma {span('gamma')},",
        f"  of what preemption can save at most, {span('hits_needed')} must be saved",
    ]


def _tried(scenario: Scenario, baseline: Baseline, found: Sequence[Machine]) -> list[str]:
    """The deployed code, at the point that needs the fewest right hints and at the one with the slowest draft."""
    lines = [
        "  simulated there, with the scenario's exits:  lower than the cloud: sync   seed   preemption's own share"
    ]
    cloud = "cloud" if baseline == "streamed" else PER_TOKEN
    for machine in dict.fromkeys((found[0], max(found, key=lambda one: one.draft_step_ms))):
        sync, seed = f"sync:gamma={machine.gamma}", f"seed:gamma={machine.gamma}"
        got = simulated(at_point(scenario, machine), [cloud, sync, seed])
        lower = [1 - got[policy].token_ms / got[cloud].token_ms for policy in (sync, seed)]
        share = 1 - got[seed].token_ms / got[sync].token_ms
        point = (
            f"step {machine.draft_step_ms:g}, pass {machine.pass_ms:g}, round trip {machine.round_trip_ms:g} ms, "
            f"a {machine.acceptance:g}, gamma {machine.gamma}"
        )
        lines.append(f"    {point:67} {lower[0]:9.1%} {lower[1]:6.1%} {share:8.1%}")
    return lines


def at_point(scenario: Scenario, machine: Machine) -> Scenario:
    """The scenario with a machine's figures in the place of its profiles'."""
    draft, target, link = scenario.draft, scenario.target, scenario.link
    step = Line(
        base_s=machine.draft_step_ms / 1e3,
        flat_tokens=draft.draft_step.range.new_tokens[1],
        range=draft.draft_step.range,
    )
    through = Line(
        base_s=machine.pass_ms / 1e3, flat_tokens=target.target_pass.range.new_tokens[1], range=target.target_pass.range
    )
    one_way_s = machine.round_trip_ms / 2e3
    up, down = (
        msgspec.structs.replace(way, delay_s=one_way_s, jitter_s=0.0, rate_bps=None, queue_bytes=None)
        for way in (link.up, link.down)
    )
    pair = scenario.pair
    if isinstance(pair, SyntheticPair):
        rest = [rank * (1 - machine.acceptance) / (1 - pair.ranks[0]) for rank in pair.ranks[1:]]
        pair = msgspec.structs.replace(pair, ranks=(machine.acceptance, *rest))
    model = msgspec.structs.replace(target.model, exit_s=0.0, head_share=0.0)
    return replace(
        scenario,
        draft=msgspec.structs.replace(draft, draft_step=step),
        target=msgspec.structs.replace(target, target_pass=through, model=model),
        link=msgspec.structs.replace(link, up=up, down=down, framing=None, loss=None),
        pair=pair,
    )


def _flat(milliseconds: float, holds: Range) -> Line:
    """The same time for however many tokens."""
    return Line(base_s=milliseconds / 1e3, flat_tokens=holds.new_tokens[1], range=holds)


def _with_interval(mean: float, bounds: tuple[float, float] | None) -> str:
    return f"{mean:.3f}" if bounds is None else f"{mean:.3f} ({bounds[0]:.3f} to {bounds[1]:.3f})"
