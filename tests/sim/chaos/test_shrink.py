"""Shrinking: the least that breaks something, found the same way each time."""

import pytest

from foredraft_sim.chaos.plan import Plan, plan_of
from foredraft_sim.chaos.shrink import shrunk
from foredraft_sim.chaos.worlds import least, lived, outcome_of
from sim.chaos.mutations import a_text_goes_on_with_whatever_model_is_served
from sim.chaos.worlds_of_tests import SEED


def numbers(plan: Plan) -> list[int]:
    return [number for number, _ in plan.items]


@pytest.mark.parametrize("needed", [{0}, {3, 7}, {1, 2, 11}, set(), set(range(12))], ids=str)
def test_all_that_is_not_needed_is_left_out(needed: set[int]) -> None:
    plan = plan_of(SEED, 42)
    assert len(plan.items) >= 12
    asked = 0

    def breaks(fewer: Plan) -> bool:
        nonlocal asked
        asked += 1
        return needed <= set(numbers(fewer))

    assert set(numbers(shrunk(plan, breaks))) == needed
    assert asked < len(plan.items) ** 2


def test_where_one_of_two_is_enough_one_is_left() -> None:
    fewer = shrunk(plan_of(SEED, 42), lambda plan: bool({2, 5} & set(numbers(plan))))
    assert numbers(fewer) in ([2], [5])


def test_a_bug_is_shrunk_to_the_text_and_the_faults_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    a_text_goes_on_with_whatever_model_is_served(monkeypatch)
    number = next(number for number in range(200) if outcome_of(SEED, number).broken)
    plan = plan_of(SEED, number)
    fewer = least(plan, "text")
    kinds = [item.kind for _, item in fewer.items]
    assert {"session", "swap"} <= set(kinds)
    assert len(kinds) < len(plan.items) / 2
    assert least(plan, "text") == fewer
    for number in numbers(fewer):  # each of them is needed
        rest = fewer.keep([other for other in numbers(fewer) if other != number])
        assert "text" not in {one.name for one in lived(rest)}
