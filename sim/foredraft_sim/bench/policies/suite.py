"""A part of ``foredraft bench policies``: trials, run anywhere and in any order, and what is made of their outcomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foredraft.bench.result import Figure
from foredraft_sim.bench.policies.decisions import Decisions, try_decisions
from foredraft_sim.bench.policies.drift import Drift, try_drift
from foredraft_sim.bench.policies.setting import Outcome, Setting, try_policy


@dataclass(frozen=True, slots=True)
class Trial:
    """One policy in one place with one seed."""

    where: Setting | Drift | Decisions
    policy: str
    seed: int


def run_one(shared: None, trial: Trial) -> Outcome:
    """What one trial comes to, in whatever process."""
    if isinstance(trial.where, Drift):
        return try_drift(trial.where, trial.policy, trial.seed)
    if isinstance(trial.where, Decisions):
        return try_decisions(trial.where, trial.policy, trial.seed)
    return try_policy(trial.where, trial.policy, trial.seed)


Outcomes = Mapping[Trial, Outcome]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Suite:
    """A part of the benchmark. ``judge`` makes of all outcomes the rows to show and the figures.

    ``missed``: against what a row is worse than it should be; empty where it is not.
    """

    name: str
    says: str
    trials: Sequence[Trial]
    judge: Callable[[Outcomes], tuple[list[Row], list[Figure]]]
    missed: Callable[[Row], str] = lambda row: ""
