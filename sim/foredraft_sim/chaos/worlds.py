"""Very many worlds, in one process or several; the same seed gives the same ones in any case."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Final

from foredraft_sim.chaos.invariants import INVARIANTS, Broken, broken
from foredraft_sim.chaos.live import seen_of
from foredraft_sim.chaos.plan import FAULTS, PEERS, STORMY, Plan, plan_of
from foredraft_sim.chaos.shrink import shrunk
from foredraft_sim.workers.workers import Here, Workers

AT_A_TIME: Final = 8
"""Worlds in one task, where there are several workers."""


@dataclass(frozen=True, slots=True)
class Only:
    """What is looked at: these invariants, and worlds with no other ills than these; empty for all."""

    invariants: tuple[str, ...] = ()
    ills: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Sequence[str]) -> "Only":
        """From what a user named; each name is known (``NAMES``)."""
        return cls(tuple(name for name in names if name in INVARIANTS), tuple(name for name in names if name in ILLS))

    def of_plan(self, plan: Plan) -> Plan:
        """The plan with the ills that are looked at."""
        return plan.without(set(ILLS) - set(self.ills)) if self.ills else plan


ILLS: Final = (*FAULTS, *PEERS, STORMY)
NAMES: Final = (*INVARIANTS, *ILLS)
EVERYTHING: Final = Only()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One world: how many sessions it had, and what was broken."""

    number: int
    sessions: int
    broken: tuple[Broken, ...]


def lived(plan: Plan, only: Only = EVERYTHING) -> list[Broken]:
    """What is broken in a world."""
    return [one for one in broken(plan, seen_of(plan)) if not only.invariants or one.name in only.invariants]


def outcome_of(seed: int, number: int, only: Only = EVERYTHING) -> Outcome:
    """One world of a seed."""
    plan = only.of_plan(plan_of(seed, number))
    return Outcome(number, len(plan.sessions), tuple(lived(plan, only)))


def outcomes(
    seed: int, sessions: int | None, workers: Workers | None = None, only: Only = EVERYTHING
) -> Iterator[Outcome]:
    """World after world, in order, until there were so many sessions; None: without end."""
    workers = workers or Here()
    numbers = iter(count() if sessions is None else range(worlds_for(seed, sessions)))
    at_a_time = 1 if workers.count == 1 else AT_A_TIME
    pieces = iter(lambda: list(islice(numbers, at_a_time)), [])
    for found in workers.map(_some, (seed, only), pieces):
        yield from found


def _some(shared: tuple[int, Only], numbers: Sequence[int]) -> list[Outcome]:
    seed, only = shared
    return [outcome_of(seed, number, only) for number in numbers]


def worlds_for(seed: int, sessions: int) -> int:
    """How many worlds of a seed have so many sessions."""
    have = 0
    for number in count():
        if have >= sessions:
            return number
        have += len(plan_of(seed, number).sessions)
    return 0


def least(plan: Plan, name: str) -> Plan:
    """The least of a plan that breaks the invariant of that name."""
    return shrunk(plan, lambda fewer: any(one.name == name for one in lived(fewer)))
