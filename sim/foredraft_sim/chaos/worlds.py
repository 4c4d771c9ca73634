"""Very many worlds, in one process or several; the same seed gives the same ones in any case."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count, islice
from typing import Final

from foredraft_sim.chaos.invariants import INVARIANTS, Broken, broken
from foredraft_sim.chaos.live import seen_of
from foredraft_sim.chaos.plan import FAULTS, PEERS, STORMY, Plan, plan_of
from foredraft_sim.chaos.shrink import shrunk

AT_A_TIME: Final = 8
"""Worlds in one piece of work for a process."""


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


def outcomes(seed: int, sessions: int | None, workers: int = 1, only: Only = EVERYTHING) -> Iterator[Outcome]:
    """World after world, in order, until there were so many sessions; None: without end."""
    numbers = count() if sessions is None else range(worlds_for(seed, sessions))
    if workers == 1:
        yield from (outcome_of(seed, number, only) for number in numbers)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin) as pool:
        try:
            yield from _in_order(pool, seed, iter(numbers), workers, only)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, seed: int, numbers: Iterator[int], workers: int, only: Only
) -> Iterator[Outcome]:
    """What the processes found; a few pieces of work for each are always waiting."""
    running: deque[Future[list[Outcome]]] = deque()
    while True:
        while len(running) < 3 * workers and (piece := list(islice(numbers, AT_A_TIME))):
            running.append(pool.submit(_some, seed, piece, only))
        if not running:
            return
        yield from running.popleft().result()


def _begin() -> None:
    """An interrupt is for the process that was asked; it ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _some(seed: int, numbers: Iterable[int], only: Only) -> list[Outcome]:
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
