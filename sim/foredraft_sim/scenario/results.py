"""From replications to figures: means with confidence intervals, percentiles, cost and energy.

The fields of ``foredraft generate --json`` keep their names. Each is one number per seed (a mean
over its requests for ``ttft_s``, ``tpot_s``, ``e2e_s`` and ``wait_s``, a sum over them for counts,
bytes and device seconds; ``missed`` is the share of them that missed their deadline, and times of
those end with their last token), and what is shown is the mean over the seeds. An interval is
Student's 95% confidence interval of that mean; one seed has none. Percentiles are over all requests
of all seeds. Ratios to the first policy are taken seed by seed, since all policies meet the same luck.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import fmean, stdev
from typing import Any, Final

from foredraft.observe.aggregate import COUNTS, TIMES, percentile
from foredraft.profiles import Profile
from foredraft_sim.scenario.finished import Finished, Replication
from foredraft_sim.scenario.scenario import Scenario, assumed_in
from foredraft_sim.tokens.fitted import FittedPair

PERCENTILES: Final = (50, 90, 99)

COST_NOTE: Final = (
    "cost_usd: the price of all servers for the whole duration, busy or not; "
    "cost_busy_usd: the same price for their busy seconds alone, as if others paid for the rest"
)
ENERGY_NOTE: Final = (
    "edge_energy_j: the device's active watts while it drafts and its idle watts during the rest of its sessions; "
    "the time between requests is left out"
)
REJECTION_NOTE: Final = "by rejection sampling each policy writes texts of its own: they are not compared"
MISSED_NOTE: Final = "times of texts that missed their deadline end with the last token that came before it"

Figures = dict[str, float | None]


def student_t(freedom: int) -> float:
    """The 97.5% quantile of Student's distribution (Abramowitz and Stegun, 26.7.5, beyond the table)."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    z = 1.959963985
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


_T: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def interval(samples: Sequence[float]) -> tuple[float, float] | None:
    """Student's 95% confidence interval of the mean; None for fewer than two samples."""
    if len(samples) < 2:
        return None
    mean, half = fmean(samples), student_t(len(samples) - 1) * stdev(samples) / math.sqrt(len(samples))
    return mean - half, mean + half


def figures_of(scenario: Scenario, one: Replication) -> Figures:
    """One replication's numbers."""
    reports = [finished.report for finished in one.finished]
    figures: Figures = {name: fmean(getattr(report, name) for report in reports) for name in TIMES}
    figures |= {name: float(sum(getattr(report, name) for report in reports)) for name in COUNTS}
    tokens, passes = sum(report.new_tokens for report in reports), sum(report.passes for report in reports)
    held_s = scenario.file.cloud.servers * one.duration_s
    figures |= {
        "tokens_per_pass": tokens / passes if passes else 0.0,
        "wait_s": fmean(finished.began_s - finished.arrived_s for finished in one.finished),
        "duration_s": one.duration_s,
        "tokens_per_s": tokens / one.duration_s,
        "cloud_s": one.servers_busy_s,
        "utilisation": one.servers_busy_s / held_s,
        "edge_busy_s": one.devices_busy_s,
        "missed": None if scenario.workload.deadline_s is None else fmean(each.missed for each in one.finished),
    }
    price = scenario.target.cost.price_usd_per_hour
    figures["cost_usd"] = None if price is None else price * held_s / 3600
    figures["cost_busy_usd"] = None if price is None else price * one.servers_busy_s / 3600
    figures["cost_usd_per_million_tokens"] = (
        None if price is None or not tokens else price * held_s / 3600 / tokens * 1e6
    )
    energy_j = _energy_j(scenario, one)
    figures["edge_energy_j"] = energy_j
    figures["edge_j_per_token"] = None if energy_j is None or not tokens else energy_j / tokens
    return figures


def _energy_j(scenario: Scenario, one: Replication) -> float | None:
    cost = scenario.draft.cost
    if cost.active_w is None or cost.idle_w is None:
        return None
    session_s = sum(finished.report.e2e_s for finished in one.finished)
    return cost.active_w * one.devices_busy_s + cost.idle_w * max(0.0, session_s - one.devices_busy_s)


def summarise(scenario: Scenario, replications: Sequence[Replication]) -> dict[str, Any]:
    """Everything that ``foredraft simulate --json`` prints. ``replications``: by policy, the first is the baseline."""
    by_policy: dict[str, list[Replication]] = {}
    for one in replications:
        by_policy.setdefault(one.policy, []).append(one)
    baseline = [_end_to_end_s(one) for one in next(iter(by_policy.values()))]
    notes = [COST_NOTE, ENERGY_NOTE]
    if scenario.target.cost.price_usd_per_hour is None:
        notes.append(f"the price of {scenario.target.name!r} is unknown: no cost")
    if scenario.draft.cost.active_w is None or scenario.draft.cost.idle_w is None:
        notes.append(f"the watts of {scenario.draft.name!r} are unknown: no energy")
    if scenario.workload.deadline_s is not None:
        notes.append(MISSED_NOTE)
    if scenario.rejects:
        notes.append(REJECTION_NOTE)
    return {
        "scenario": str(scenario.path),
        "title": scenario.file.title,
        "seeds": [one.seed for one in next(iter(by_policy.values()))],
        "devices": scenario.workload.devices,
        "servers": scenario.file.cloud.servers,
        "requests_per_seed": scenario.workload.requests,
        "inputs": inputs_of(scenario),
        "policies": [_of_policy(scenario, spec, ones, baseline) for spec, ones in by_policy.items()],
        "same_texts": None if scenario.rejects else _same_texts(replications),
        "notes": notes,
        "warnings": sorted({warning for one in replications for warning in one.warnings}),
    }


def _same_texts(replications: Sequence[Replication]) -> bool:
    """Whether all policies' texts are the same; those that a deadline cut off are not compared."""
    whole = {(one.seed, text.request, text.digest) for one in replications for text in one.finished if not text.missed}
    return len(whole) == len({(seed, request) for seed, request, _ in whole})


def _of_policy(scenario: Scenario, spec: str, ones: Sequence[Replication], baseline: Sequence[float]) -> dict[str, Any]:
    rows = [figures_of(scenario, one) for one in ones]
    columns = {name: [value for row in rows if (value := row[name]) is not None] for name in rows[0]}
    said: dict[str, Any] = {"policy": spec}
    said |= {name: fmean(values) if values else None for name, values in columns.items()}
    taken_s = list(map(_end_to_end_s, ones))
    speeds = [before / end_to_end_s for before, end_to_end_s in zip(baseline, taken_s, strict=True) if end_to_end_s]
    said["speed_against_first"] = fmean(speeds) if speeds else None
    said["intervals"] = {name: interval(values) for name, values in columns.items()}
    said["intervals"]["speed_against_first"] = interval(speeds)
    finished = [f for one in ones for f in one.finished]
    said["percentiles"] = _percentiles(finished)
    said["by_key"] = {
        table.name: _percentiles([f for f in finished if scenario.key_of(f.request) is table])
        for table in scenario.file.keys
    }
    said["finish_reasons"] = dict(Counter(f.report.finish_reason for f in finished))
    said["first_request"] = asdict(ones[0].finished[0].report) | {"text_digest": ones[0].finished[0].digest}
    return said


def _percentiles(finished: Sequence[Finished]) -> dict[str, dict[str, float]]:
    """Of the times of these requests; none of none."""
    return {
        name: {f"p{percent}": percentile(list(map(pick, finished)), percent) for percent in PERCENTILES}
        for name, pick in _PICKS.items()
        if finished
    }


def _end_to_end_s(one: Replication) -> float:
    return fmean(finished.report.e2e_s for finished in one.finished)


_PICKS: Final[dict[str, Callable[[Any], float]]] = {
    "ttft_s": lambda finished: finished.report.ttft_s,
    "tpot_s": lambda finished: finished.report.tpot_s,
    "e2e_s": lambda finished: finished.report.e2e_s,
    "wait_s": lambda finished: finished.began_s - finished.arrived_s,
}


def inputs_of(scenario: Scenario) -> dict[str, Any]:
    """What the figures rest on, and which of it is assumed."""
    file = scenario.file
    tables = (
        ("edge", file.edge, scenario.draft),
        ("cloud", file.cloud, scenario.target),
        ("link", file.link, scenario.link),
    )
    inputs: dict[str, Any] = {name: _profile_said(profile, table.override) for name, table, profile in tables}
    pair = scenario.pair
    inputs["pair"] = pair.told() if isinstance(pair, FittedPair) else pair
    return inputs


def _profile_said(profile: Profile, override: dict[str, Any]) -> dict[str, Any]:
    kinds = Counter(origin.provenance for origin in profile.provenance.values())
    return {
        "profile": profile.name,
        "title": profile.title,
        "provenance": dict(sorted(kinds.items())),
        "assumed": assumed_in(profile),
        "overridden": override,
    }
