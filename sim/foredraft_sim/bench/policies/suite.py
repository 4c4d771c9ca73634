"""A part of ``foredraft bench policies``: trials, run anywhere and in any order, and what is made of their outcomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foredraft.bench.result import Figure
from foredraft_sim.bench.policies.decisions import Decisions
from foredraft_sim.bench.policies.drift import Drift
from foredraft_sim.bench.policies.setting import Outcome, Setting


@dataclass(frozen=True, slots=True)
class Trial:
    """One policy in one place with one seed."""

    where: Setting | Drift | Decisions
    policy: str
    seed: int


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
