"""What ``foredraft bench policies`` runs: settings, policies and seeds; and what must come of it.

Requirements are those of the project; a figure without a bound is only reported.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from statistics import fmean
from typing import Any, Final

from foredraft.bench.result import Figure
from foredraft.edge.path_probability import expected_tokens
from foredraft.observe.aggregate import percentile
from foredraft.protocol.sampling import NOISE
from foredraft_sim.bench.policies.drift import Drift
from foredraft_sim.bench.policies.missed import decisions
from foredraft_sim.bench.policies.setting import Setting, Shipped, Times, reference_pair, scaled_pair
from foredraft_sim.bench.policies.suite import Outcomes, Row, Suite, Trial
from foredraft_sim.scenario.scenario_file import Rule

PASS_S: Final = 0.03
ROUND_TRIPS: Final = (0.03, 0.1, 0.3, 0.6, 1.0, 3.0, 10.0)
ACCEPTANCES: Final = (0.3, 0.45, 0.6, 0.75, 0.9)
STEPS: Final = (0.02, 0.05, 0.1, 0.3, 0.6, 1.0)
QUICK: Final = ((0.03, 0.3, 3.0), (0.3, 0.9), (0.02, 0.3))
GAMMAS: Final = (1, 2, 3, 4, 5, 7, 10, 15)
SHORT: Final = (16, 20, 24, 28, 32)
LINKS: Final = ("lan", "wifi", "5g", "lte", "wan", "3g")
QUANTILES: Final = {"least": 0, "10%": 10, "median": 50, "90%": 90, "99%": 99, "most": 100}
ROBOT: Final = Times(pass_s=0.62, flat_tokens=32, step_s=0.072, round_trip_s=0.12)


def mean_s(outcomes: Outcomes, where: Setting | Drift, policy: str, seeds: Sequence[int]) -> float:
    """End to end seconds, averaged over the seeds."""
    return fmean(outcomes[Trial(where, policy, seed)].e2e_s for seed in seeds)


def best_gammas(setting: Setting, count: int = 3) -> list[int]:
    """The gammas that the closed form of a synchronous round puts first."""
    place = setting.place
    if not isinstance(place, Times):
        return [2, 4, 6]
    first = (setting.acceptance,)

    def token_s(gamma: int) -> float:
        round_s = gamma * place.step_s + place.round_trip_s + setting.pass_s(gamma)
        return round_s / expected_tokens(first, gamma, gamma)

    return sorted(GAMMAS, key=token_s)[:count]


def rivals(setting: Setting) -> list[str]:
    """``sync`` with the gammas worth trying, and ``seed`` as it comes and with a longer chain."""
    return [*(f"sync:gamma={gamma}" for gamma in best_gammas(setting)), "seed", "seed:gamma=7"]


def per_policy(outcomes: Outcomes, where: Setting, policies: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """A row per policy, relative to ``cloud``, with what it costs per committed token."""
    cloud_s = mean_s(outcomes, where, "cloud", seeds)
    rows: list[Row] = []
    for policy in policies:
        found = [outcomes[Trial(where, policy, seed)] for seed in seeds]
        bound_s, knowing_s = where.bounds_s()
        token_s = fmean(one.token_s for one in found)
        row: Row = {
            "policy": policy,
            "ms_per_token": token_s * 1e3,
            "of_cloud": fmean(one.e2e_s for one in found) / cloud_s,
            "times_bound": token_s / bound_s,
            "times_knowing_bound": token_s / knowing_s,
        }
        for name in ("passes", "verified", "bytes_up", "bytes_down", "target_s", "draft_s", "energy_j", "cost_usd"):
            values = [getattr(one, name) for one in found]
            row[name] = None if None in values else fmean(values)
        rows.append(row)
    return rows


def robot(seeds: Sequence[int]) -> Suite:
    """The seed's robot point."""
    where = Setting(ROBOT)
    policies = ["cloud", *(f"sync:gamma={gamma}" for gamma in best_gammas(where, 1)), "sync", "seed", "ahead", "auto"]

    def judge(outcomes: Outcomes) -> tuple[list[Row], list[Figure]]:
        rows = per_policy(outcomes, where, policies, seeds)
        auto = rows[-1]
        return rows, [
            Figure("auto, time per token of cloud", auto["of_cloud"], "x", 0.50),
            Figure("auto, times the bound", auto["times_bound"], "x", 1.6),
        ]

    says = "draft step 72 ms to 8 nodes, pass 620 ms to 32 tokens (both ASSUMED flat), round trip 120 ms; 256 tokens"
    return Suite("robot", says, [Trial(where, policy, seed) for policy in policies for seed in seeds], judge)


def jetson(seeds: Sequence[int], links: Sequence[str]) -> Suite:
    """A Jetson Nano with an A100, over every shipped link."""
    clouds = {"compiled": "a100-llama2-7b", "eager": "a100-llama2-7b-eager"}
    places = {
        (title, line): Setting(Shipped("jetson-nano-vicuna-68m", cloud, line))
        for (title, cloud), line in product(clouds.items(), links)
    }
    policies = ["cloud", "sync:gamma=2", "sync:gamma=4", "seed", "ahead", "auto"]

    def judge(outcomes: Outcomes) -> tuple[list[Row], list[Figure]]:
        rows: list[Row] = []
        for (title, line), where in places.items():
            rows += [{"target": title, "link": line} | row for row in per_policy(outcomes, where, policies, seeds)]
        worst = max(row["of_cloud"] for row in rows if row["policy"] == "auto")
        return rows, [Figure("auto, time of cloud at worst", worst, "x", 1.05)]

    trials = [Trial(where, policy, seed) for where in places.values() for policy in policies for seed in seeds]
    return Suite("jetson", "shipped profiles, Jetson Nano with an A100; 256 tokens", trials, judge)


def grid(seeds: Sequence[int], axes: Sequence[Sequence[float]]) -> Suite:
    """Do no harm: sessions of 256 tokens over the grid, against cloud and against the best of all."""
    cells = cells_of(axes, new_tokens=256)
    trials = [
        Trial(where, policy, seed)
        for where in cells.values()
        for policy in ("cloud", "auto", *rivals(where))
        for seed in seeds
    ]

    def judge(outcomes: Outcomes) -> tuple[list[Row], list[Figure]]:
        rows: list[Row] = []
        for (round_trip, acceptance, step), where in cells.items():
            taken_s = {policy: mean_s(outcomes, where, policy, seeds) for policy in ("cloud", "auto", *rivals(where))}
            auto_s = taken_s.pop("auto")
            best = min(taken_s, key=lambda policy: taken_s[policy])
            row: Row = {"rtt/pass": round_trip, "acceptance": acceptance, "step/pass": step}
            row |= {"auto_of_cloud": auto_s / taken_s["cloud"], "best": best, "auto_of_best": auto_s / taken_s[best]}
            row["of_cloud_at_worst"] = worst_of_cloud(outcomes, where, seeds)
            rows.append(row | {"times_bound": auto_s / 256 / where.bounds_s()[0]})
        of_best = [row["auto_of_best"] for row in rows]
        return rows, [
            *no_harm(rows),
            Figure("cells where auto is within 1.10 of the best", share(of_best, 1.10), "%", 95.0, at_least=True),
            *spread("auto of cloud", [row["auto_of_cloud"] for row in rows]),
            *spread("auto of the best", of_best),
            *spread("auto, times the bound", [row["times_bound"] for row in rows]),
        ]

    def missed(row: Row) -> str:
        against = {"cloud": row["auto_of_cloud"] > 1.02, "best": row["auto_of_best"] > 1.10}
        return ", ".join(name for name, worse in against.items() if worse)

    says = f"{len(cells)} cells, {len(seeds)} seeds, 256 tokens, pass 30 ms flat to 8"
    return Suite("grid", says, trials, judge, missed)


def harm(name: str, says: str, settings: Mapping[Any, Setting], seeds: Sequence[int]) -> Suite:
    """``auto`` against ``cloud`` over cells, seed by seed summed."""
    trials = [
        Trial(where, policy, seed) for where in settings.values() for policy in ("cloud", "auto") for seed in seeds
    ]

    def judge(outcomes: Outcomes) -> tuple[list[Row], list[Figure]]:
        rows: list[Row] = []
        for (round_trip, acceptance, step), where in settings.items():
            of_cloud = mean_s(outcomes, where, "auto", seeds) / mean_s(outcomes, where, "cloud", seeds)
            row: Row = {"rtt/pass": round_trip, "acceptance": acceptance, "step/pass": step}
            row |= {"auto_of_cloud": of_cloud, "of_cloud_at_worst": worst_of_cloud(outcomes, where, seeds)}
            rows.append(row)
        return rows, [*no_harm(rows), *spread("auto of cloud", [row["auto_of_cloud"] for row in rows])]

    def missed(row: Row) -> str:
        return "cloud" if row["auto_of_cloud"] > 1.02 else ""

    return Suite(name, f"{len(settings)} cells, {len(seeds)} seeds; {says}", trials, judge, missed)


def drift(seeds: Sequence[int]) -> Suite:
    """A step in the round trip and in the acceptance, against the policy that knew."""
    drifts = [
        Drift("round trip 20 to 200 ms", 0.02, 0.2, 0.8, 0.8),
        Drift("acceptance 0.8 to 0.4", 0.02, 0.02, 0.8, 0.4),
    ]
    trials = [Trial(one, policy, seed) for one in drifts for policy in ("auto", "knew") for seed in seeds]

    def judge(outcomes: Outcomes) -> tuple[list[Row], list[Figure]]:
        rows: list[Row] = []
        for one in drifts:
            auto_s, knew_s = (mean_s(outcomes, one, policy, seeds) for policy in ("auto", "knew"))
            rows.append({"step": one.says, "auto_s": auto_s, "knew_s": knew_s, "loss": auto_s / knew_s - 1.0})
        figures = [Figure(f"loss, {row['step']}", 100.0 * row["loss"], "%", 10.0) for row in rows]
        return rows, figures

    return Suite("drift", "the 64 tokens after the step; pass 30 ms, draft step 3 ms", trials, judge)


def cost(seeds: Sequence[int], weights: Sequence[float] = (0.0, 0.5, 1.0, 2.0, 4.0)) -> Suite:
    """The price: device seconds per token must not rise with it."""
    where = Setting(ROBOT)
    policies = [f"auto:cost_weight={weight:g}" for weight in weights]

    def judge(outcomes: Outcomes) -> tuple[list[Row], list[Figure]]:
        rows = per_policy(outcomes, where, ["cloud", *policies], seeds)
        for row in rows:
            row["device_s"] = row["target_s"] + row["draft_s"]
        billed = [row["device_s"] for row in rows[1:]]
        rise = max(later / earlier for earlier, later in pairwise(billed))
        return rows, [Figure("device seconds per token, a weight over the next smaller one, at worst", rise, "x", 1.0)]

    trials = [Trial(where, policy, seed) for policy in ("cloud", *policies) for seed in seeds]
    return Suite("cost", "robot point, --cost-weight 0 to 4", trials, judge)


def cells_of(
    axes: Sequence[Sequence[float]], *, new_tokens: int | tuple[int, ...], outage: str = "", rule: Rule = NOISE
) -> dict[tuple[float, float, float], Setting]:
    """The cells of a grid: (round trip over pass, acceptance, draft step over pass) and where that is."""
    return {
        (round_trip, acceptance, step): Setting(
            Times(PASS_S, 8, step * PASS_S, round_trip * PASS_S), acceptance, new_tokens, outage, rule
        )
        for round_trip, acceptance, step in product(*axes)
    }


def share(ratios: Sequence[float], most: float) -> float:
    """How many of them are at most ``most``, in percent."""
    return 100.0 * sum(ratio <= most for ratio in ratios) / len(ratios)


def worst_of_cloud(outcomes: Outcomes, where: Setting, seeds: Sequence[int]) -> float:
    """``auto`` over ``cloud`` with the seed that is worst for it."""
    return max(
        outcomes[Trial(where, "auto", seed)].e2e_s / outcomes[Trial(where, "cloud", seed)].e2e_s for seed in seeds
    )


def spread(name: str, ratios: Sequence[float]) -> list[Figure]:
    """How a ratio is distributed over the cells."""
    return [Figure(f"{name}, {said}", percentile(ratios, at), "x") for said, at in QUANTILES.items()]


def no_harm(rows: Sequence[Row]) -> list[Figure]:
    """The requirement of every grid: over the mean of the seeds, and what single ones were at worst."""
    of_cloud = [row["auto_of_cloud"] for row in rows]
    return [
        Figure("cells where auto is within 1.02 of cloud", share(of_cloud, 1.02), "%", 99.0, at_least=True),
        Figure("auto of cloud, at worst", max(of_cloud), "x", 1.05),
        Figure("auto of cloud, at worst with any one seed", max(row["of_cloud_at_worst"] for row in rows), "x"),
    ]


def suites(quick: bool, seeds: int = 0, links: Sequence[str] = ()) -> list[Suite]:
    """All of them. ``quick``: a few cells and seeds, to see that all is well. ``seeds``: so many in each part.

    ``links``: profiles over which decisions are timed as well.
    """
    axes: Sequence[Sequence[float]] = QUICK if quick else (ROUND_TRIPS, ACCEPTANCES, STEPS)
    few: Sequence[int] = (1, 2) if quick else range(1, 9)
    some: Sequence[int] = (1,) if quick else (1, 2, 3)
    one: Sequence[int] = (1,)
    if seeds:
        few = some = one = range(1, seeds + 1)

    over, requests = (("robot", *links), 10) if quick else (("robot", "lte", "wifi", *links), 40)

    def outage(kind: str, says: str) -> Suite:
        cells = cells_of(axes, new_tokens=256, outage=kind)
        return harm(f"outage-{kind}", f"an outage of 2 s ({says}), 256 tokens", cells, one)

    return [
        robot(few),
        jetson(few[: 1 if quick else 2], ("lan", "3g") if quick else LINKS),
        grid(some, axes),
        harm("short", f"answers of {SHORT} tokens", cells_of(axes, new_tokens=SHORT), some),
        outage("held", "messages wait"),
        outage("cut", "connections break"),
        drift(few),
        cost(few),
        decisions(some, over, requests),
        decisions(some, over[1:] or ("lte",), requests, fast=True),
    ]


__all__ = ["reference_pair", "scaled_pair", "suites"]
