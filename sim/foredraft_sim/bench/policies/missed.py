"""The part about deadlines: which share of decisions each policy misses."""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Final

from foredraft.bench.result import Figure
from foredraft_sim.bench.policies.decisions import FAST, NOT_TOLD, ROBOT, Decisions
from foredraft_sim.bench.policies.suite import Outcomes, Row, Suite, Trial

TIMES_MEDIAN: Final = (1.0, 1.5, 2.0)


def decisions(seeds: Sequence[int], links: Sequence[str], requests: int, *, fast: bool = False) -> Suite:
    """What each policy misses at 1, 1.5, 2 times the median of ``cloud``. ``fast``: where that is hard to beat."""
    bound = None if fast else 0.5
    policies = ["cloud", "sync", "seed", "ahead", NOT_TOLD, "auto"]
    places = [Decisions(link, times, requests, FAST if fast else ROBOT) for link in links for times in TIMES_MEDIAN]
    trials = [Trial(where, policy, seed) for where in places for policy in policies for seed in seeds]

    def judge(outcomes: Outcomes) -> tuple[list[Row], list[Figure]]:
        rows: list[Row] = []
        for where in places:
            row: Row = {"link": Path(where.link).stem, "of cloud's median": where.times}
            for policy in policies:
                row[policy] = fmean(outcomes[Trial(where, policy, seed)].missed for seed in seeds)
            rows.append(row)
        figures = [
            Figure(f"auto's misses over cloud's at 1.5x, {row['link']}", _over(row["auto"], row["cloud"]), "x", bound)
            for row in rows
            if row["of cloud's median"] == 1.5
        ]
        return rows, figures

    who = "a Jetson Nano with an A100 that takes milliseconds for a pass" if fast else "the seed's robot"
    says = f"shares of decisions that are missed, {who}; {requests} for each of {len(seeds)} seed(s)"
    return Suite("decisions-fast" if fast else "decisions", says, trials, judge)


def _over(some: float, others: float) -> float:
    """Their ratio; 0 over 0 is 0."""
    if others:
        return some / others
    return inf if some else 0.0
