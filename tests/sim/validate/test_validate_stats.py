"""Errors, distances, rankings and regret, on samples whose answers are known."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.observe.aggregate import percentile
from foredraft_sim.validate.stats import errors_of, ks_distance, ranking_of

positive = st.floats(0.001, 1000.0)


def test_errors_are_relative_and_the_bias_keeps_its_sign() -> None:
    found = errors_of([1.0, 2.0, 4.0, 5.0], [1.1, 1.8, 4.0, 5.5])
    assert found.count == 4
    assert found.mean == pytest.approx((0.1 + 0.1 + 0.0 + 0.1) / 4)
    assert found.p50 == pytest.approx(0.1)
    assert found.bias == pytest.approx(0.1 / 4)


@given(real=st.lists(positive, min_size=1, max_size=50), share=st.floats(-0.5, 2.0))
def test_a_simulation_that_is_off_by_one_share_everywhere_has_that_error_everywhere(
    real: list[float], share: float
) -> None:
    found = errors_of(real, [one * (1.0 + share) for one in real])
    for value in (found.mean, found.p50, found.p90, found.p99):
        assert value == pytest.approx(abs(share), abs=1e-9)
    assert found.bias == pytest.approx(share, abs=1e-9)


def test_the_percentiles_of_a_hundred_errors_are_those_that_they_say() -> None:
    found = errors_of([1.0] * 101, [1.0 + place / 100 for place in range(101)])
    assert (found.p50, found.p90, found.p99) == pytest.approx((0.5, 0.9, 0.99))
    assert percentile([1.0], 99) == 1.0


def test_lists_that_do_not_match_are_no_comparison() -> None:
    with pytest.raises(ValueError, match="argument"):
        errors_of([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no pairs"):
        errors_of([], [])
    with pytest.raises(ValueError, match="nothing"):
        ks_distance([], [1.0])


def test_the_distance_of_distributions_is_known_for_known_ones() -> None:
    assert ks_distance([1.0, 2.0, 3.0], [3.0, 1.0, 2.0]) == 0.0
    assert ks_distance([1.0, 2.0], [3.0, 4.0]) == 1.0
    assert ks_distance([1.0, 2.0, 3.0, 4.0], [3.0, 4.0, 5.0, 6.0]) == 0.5
    assert ks_distance([1.0], [1.0, 2.0]) == 0.5
    draw = random.Random(0)
    one, other = ([draw.uniform(low, low + 1.0) for _ in range(4000)] for low in (0.0, 0.3))
    assert ks_distance(one, other) == pytest.approx(0.3, abs=0.03)


@given(one=st.lists(positive, min_size=1, max_size=20), other=st.lists(positive, min_size=1, max_size=20))
def test_the_distance_is_symmetric_and_between_0_and_1(one: list[float], other: list[float]) -> None:
    found = ks_distance(one, other)
    assert found == ks_distance(other, one)
    assert 0.0 <= found <= 1.0
    assert ks_distance(one, one) == 0.0


def test_a_ranking_that_is_kept_has_no_regret() -> None:
    found = ranking_of({"a": [1.0], "b": [2.0], "c": [3.0]}, {"a": [1.2], "b": [1.9], "c": [9.0]})
    assert found.kept
    assert found.regret == 0.0
    assert found.pairs == 3
    assert found.real == found.simulated == ("a", "b", "c")


def test_a_wrong_choice_costs_what_it_really_takes_longer() -> None:
    found = ranking_of({"a": [1.0], "b": [1.5], "c": [3.0]}, {"a": [2.0], "b": [1.0], "c": [3.0]})
    assert not found.kept
    assert found.swapped == (("a", "b"),)
    assert found.regret == pytest.approx(0.5)


def test_policies_that_reality_hardly_tells_apart_may_change_places() -> None:
    found = ranking_of({"a": [1.0], "b": [1.01], "c": [3.0]}, {"a": [1.1], "b": [1.0], "c": [3.0]})
    assert found.kept
    assert found.pairs == 2
    assert found.regret == pytest.approx(0.01)


def test_what_varies_more_than_it_differs_is_not_told_apart() -> None:
    slower = [1.3, 0.8, 1.2, 0.9, 1.1]  # 6% on average, and nobody knows
    found = ranking_of({"a": [1.0] * 5, "b": slower}, {"a": [2.0] * 5, "b": [1.0] * 5})
    assert found.pairs == 0
    assert found.kept
    assert found.regret == pytest.approx(0.06)
    surely = ranking_of({"a": [1.0] * 5, "b": [1.05, 1.06, 1.07, 1.06, 1.06]}, {"a": [2.0] * 5, "b": [1.0] * 5})
    assert surely.swapped == (("a", "b"),)


@given(
    real=st.lists(positive, min_size=2, max_size=6),
    simulated=st.lists(positive, min_size=6, max_size=6),
)
def test_regret_is_never_negative_and_a_perfect_simulation_has_none(real: list[float], simulated: list[float]) -> None:
    names = "abcdef"[: len(real)]
    theirs = {name: [value] for name, value in zip(names, real, strict=True)}
    assert ranking_of(theirs, theirs).kept
    assert ranking_of(theirs, theirs).regret == 0.0
    ours = {name: [value] for name, value in zip(names, simulated, strict=False)}
    assert ranking_of(theirs, ours).regret >= 0.0
