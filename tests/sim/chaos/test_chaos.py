"""Worlds in which things go wrong: what must hold holds, and the same seed is the same world anywhere."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest

from foredraft.cloud.proposals import Proposals
from foredraft.errors import ConfigError
from foredraft.protocol.rejection import Trial
from foredraft_sim.chaos.invariants import INVARIANTS, broken
from foredraft_sim.chaos.live import seen_of
from foredraft_sim.chaos.plan import FAULTS, PEERS, STORMY, Fault, plan_of, said
from foredraft_sim.chaos.seen import COMPLETE, Seen
from foredraft_sim.chaos.worlds import Only, outcomes, worlds_for
from foredraft_sim.workers.processes import Processes
from sim.chaos.worlds_of_tests import SEED, SESSIONS

PLANS = [plan_of(SEED, number) for number in range(worlds_for(SEED, SESSIONS))]


@pytest.fixture(scope="module")
def lives() -> list[Seen]:
    """What is seen of these worlds."""
    return [seen_of(plan) for plan in PLANS]


def test_three_hundred_sessions_in_chaos_break_nothing(lives: list[Seen]) -> None:
    assert [one for plan, seen in zip(PLANS, lives, strict=True) for one in broken(plan, seen)] == []
    assert sum(len(seen.written) for seen in lives) >= SESSIONS


def test_most_of_their_texts_are_complete_nevertheless_and_the_others_end_in_many_ways(lives: list[Seen]) -> None:
    endings = [written.ending for seen in lives for written in seen.written]
    assert endings.count(COMPLETE) > len(endings) / 2
    assert len(set(endings)) >= 6


def test_whatever_may_go_wrong_goes_wrong_in_them() -> None:
    assert set().union(*(plan.kinds for plan in PLANS)) == {*FAULTS, *PEERS, STORMY}


def test_hostile_peers_propose_and_their_texts_are_drawn_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    trials = Proposals.trials

    def counted(self: Proposals, *rows: Sequence[int]) -> tuple[Trial, ...]:
        found = trials(self, *rows)
        drawn.append(sum(bool(trial.tokens) for trial in found))
        return found

    monkeypatch.setattr(Proposals, "trials", counted)
    plan = next(plan for plan in PLANS if "wide" in plan.kinds)
    assert broken(plan, seen_of(plan)) == []
    assert max(drawn) > 1


def test_a_plan_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    assert plan_of(3, 5) == plan_of(3, 5)
    assert len({plan_of(seed, number) for seed in (3, 4) for number in (4, 5)}) == 4


def test_a_world_happens_again_as_it_did_also_in_another_process_and_with_another_hash_seed() -> None:
    numbers = (0, 3, 14, 42)
    program = (
        "from foredraft_sim.chaos.live import seen_of\nfrom foredraft_sim.chaos.plan import plan_of\n"
        f"for number in {numbers}: print(seen_of(plan_of({SEED}, number)))"
    )
    here = [str(seen_of(plan_of(SEED, number))) for number in numbers]
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
        )
        assert done.stdout.splitlines() == here


def test_two_processes_find_what_one_finds_in_the_same_order() -> None:
    only = Only(invariants=("text",), ills=("cut",))
    with Processes(2) as workers:
        assert list(outcomes(SEED, 100, workers, only)) == list(outcomes(SEED, 100, only=only))


def test_what_is_left_out_of_a_plan_changes_nothing_about_the_rest() -> None:
    plan = plan_of(SEED, 42)
    kept = plan.keep([0, 2])
    assert kept.items == (plan.items[0], plan.items[2])
    assert replace(kept, items=plan.items) == plan
    with pytest.raises(ConfigError, match=r"world 42 has no item 99; it has \d+, from 0"):
        plan.keep([0, 99])


def test_only_what_is_named_goes_wrong() -> None:
    only = Only.of(["cut", "stall", "text"])
    assert only == Only(("text",), ("cut", "stall"))
    assert set().union(*(only.of_plan(plan).kinds for plan in PLANS)) == {"cut", "stall"}


def test_every_item_is_said_in_words() -> None:
    for plan in PLANS:
        assert all(said(item) for _, item in plan.items)
    assert said(Fault("drain", 1.0, 0.5, 2)).startswith("drain 2 at 1.000 s for 0.500 s: a server is told to end")


def test_a_world_in_which_nothing_was_written_is_whole_and_one_that_failed_is_not() -> None:
    plan = plan_of(SEED, 0)
    assert broken(plan, Seen()) == []
    assert [one.name for one in broken(plan, Seen(failure="a deadlock"))] == ["ends"]
    assert list(INVARIANTS) == ["text", "shown", "ends", "left", "shares", "log", "keys"]
