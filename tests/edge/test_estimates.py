"""Averages that forget, guesses that are counted, and the snapshot that decisions are made from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.edge.estimates import Estimates
from foredraft.protocol.averages import ENOUGH, STALE_PASSES, WIDTHS, Average, Typical, width_class


def test_an_average_counts_its_first_samples_fully() -> None:
    average = Average(0.1)
    for value in (1.0, 2.0, 6.0):
        average.take(value)
    assert average.mean == pytest.approx(3.0)
    assert average.samples == 3
    assert average.deviation == pytest.approx((14.0 / 3.0) ** 0.5)


def test_an_average_follows_a_step_within_a_few_of_its_windows() -> None:
    average = Average(0.2)
    for _ in range(1000):
        average.take(1.0)
    for _ in range(15):
        average.take(2.0)
    assert average.mean == pytest.approx(2.0, abs=0.05)


@given(st.lists(st.floats(0.0, 1e3), min_size=1), st.floats(0.01, 1.0))
def test_a_mean_lies_between_the_least_and_the_greatest_sample(values: list[float], weight: float) -> None:
    average = Average(weight)
    for value in values:
        average.take(value)
    assert min(values) - 1e-9 <= average.mean <= max(values) + 1e-9
    assert average.variance >= 0.0


def test_the_clouds_word_for_what_a_pass_takes_holds_until_one_is_seen() -> None:
    estimates = Estimates()
    estimates.saw_pass(3, 2.0, 0.0, 1)
    estimates.saw_pass(3, 2.0, 0.0, 1)
    estimates.told_passes((1.0, 0.0, 5.0, 3.0))
    assert estimates.snapshot().passes_s[:5] == (1.0, 0.0, 2.0, 3.0, 0.0)
    for _ in range(3):
        estimates.saw_pass(7, 4.0, 0.0, 1)
    assert estimates.snapshot().passes_s[3] == 4.0


@pytest.mark.parametrize("width", range(len(WIDTHS)))
def test_a_pass_of_just_a_width_tells_of_that_width(width: int) -> None:
    assert width_class(WIDTHS[width]) == width


@pytest.mark.parametrize(
    ("drafted", "width"), [(2, 3), (4, 3), (5, 7), (8, 7), (10, 7), (11, 15), (16, 15), (22, 31), (500, 63)]
)
def test_other_passes_tell_of_the_nearest_width_by_ratio(drafted: int, width: int) -> None:
    assert WIDTHS[width_class(drafted)] == width


@given(st.integers(0, 200))
def test_a_wider_pass_never_tells_of_a_narrower_width(drafted: int) -> None:
    assert width_class(drafted) <= width_class(drafted + 1)
    assert (width_class(drafted) == 0) == (drafted == 0)


def test_passes_with_one_node_more_than_a_width_do_not_make_the_next_look_cheap() -> None:
    estimates = Estimates()
    for _ in range(4):
        estimates.saw_pass(8, 1.1, 0.0, 3)
    for _ in range(ENOUGH):
        estimates.saw_pass(15, 2.0, 0.0, 3)
    assert estimates.snapshot().pass_s(15) == 2.0


def test_a_width_never_seen_is_thought_to_take_a_tenth_longer_than_the_one_before() -> None:
    estimates = Estimates()
    estimates.saw_pass(0, 1.0, 0.0, 1)
    for _ in range(ENOUGH):
        estimates.saw_pass(7, 1.2, 0.0, 4)
    seen = estimates.snapshot()
    expected = [1.0, 1.1, 1.2, 1.2, 1.32, 1.452, 1.5972]  # and never longer than a wider one that was seen
    assert [seen.pass_s(nodes) for nodes in WIDTHS] == pytest.approx(expected)
    assert seen.widest == 7


def test_a_width_is_not_judged_by_one_pass_that_was_slow_by_chance() -> None:
    estimates = Estimates()
    estimates.saw_pass(0, 1.0, 0.0, 1)
    estimates.saw_pass(7, 5.0, 0.0, 4)
    assert estimates.snapshot().pass_s(7) == pytest.approx(1.1**3)
    assert estimates.snapshot().widest == 0
    estimates.saw_pass(7, 1.2, 0.0, 4)
    assert estimates.snapshot().pass_s(7) == pytest.approx(1.2)


def test_a_width_that_is_slow_every_time_is_known_for_it() -> None:
    estimates = Estimates()
    estimates.saw_pass(0, 1.0, 0.0, 1)
    for _ in range(ENOUGH):
        estimates.saw_pass(7, 5.0, 0.0, 4)
    assert estimates.snapshot().pass_s(7) == 5.0


def test_a_width_not_seen_for_long_may_be_tried_again_and_is_judged_by_one_more_pass() -> None:
    estimates = Estimates()
    for _ in range(ENOUGH):
        estimates.saw_pass(15, 3.0, 0.0, 4)
    for _ in range(STALE_PASSES + 1):
        estimates.saw_pass(0, 1.0, 0.0, 1)
    assert estimates.snapshot().pass_s(15) < 1.5
    estimates.saw_pass(15, 3.1, 0.0, 4)
    assert estimates.snapshot().pass_s(15) == 3.0


def test_decoding_alone_never_takes_longer_than_what_wider_passes_take() -> None:
    estimates = Estimates()
    estimates.saw_pass(0, 9.0, 0.0, 1)
    for _ in range(ENOUGH):
        estimates.saw_pass(3, 1.0, 0.0, 2)
    assert estimates.snapshot().passes_s[0] == 1.0


@given(st.lists(st.floats(0.1, 10.0), min_size=1), st.floats(100.0, 1e6))
def test_one_sample_in_five_never_moves_the_middle_beyond_the_others(values: list[float], outlier: float) -> None:
    typical = Typical()
    for value in [*values[-4:], outlier]:
        typical.take(value)
    assert typical.middle <= max(values[-4:])


def test_a_snapshot_is_taken_anew_when_anything_was_seen() -> None:
    estimates = Estimates()
    first = estimates.snapshot()
    assert estimates.snapshot() is first
    estimates.round_trip_s.take(0.5)
    assert estimates.snapshot().round_trip_s == 0.5
    estimates.draft_step_s.take(0.25)
    assert estimates.snapshot().draft_step_s == 0.25
    estimates.saw_pass(0, 1.0, 0.0, 1)
    assert estimates.snapshot().tokens == 1.0
    estimates.saw_guesses([(0.5, True)])
    assert estimates.snapshot().ranks == (1.0,)


def test_time_per_token_is_all_time_over_all_tokens() -> None:
    estimates = Estimates()
    estimates.saw_pass(0, 1.0, 0.0, 1)
    estimates.saw_pass(3, 1.0, 1.0, 4)
    assert estimates.snapshot().token_s == pytest.approx(3.0 / 5.0)


def test_ranks_are_by_what_the_drafter_said_and_not_by_the_order_of_drafting() -> None:
    estimates = Estimates()
    for _ in range(10):
        estimates.saw_guesses([(0.1, False), (0.6, True), (0.2, False)])
    assert estimates.snapshot().ranks == (1.0, 0.0, 0.0)


def test_the_drafters_own_word_counts_until_the_session_knows_better() -> None:
    estimates = Estimates()
    assert estimates.calibrated(0.95) == pytest.approx(0.95)
    for _ in range(200):
        estimates.saw_guesses([(0.95, False)])
    assert estimates.calibrated(0.95) < 0.1
    assert estimates.calibrated(0.45) == pytest.approx(0.45)


def test_before_anything_was_seen_the_snapshot_says_so() -> None:
    seen = Estimates().snapshot()
    assert (seen.samples, seen.token_s, seen.ranks) == (0, 0.0, ())
