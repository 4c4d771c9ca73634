"""The fit finds what made the measurements, and says how far off it is where it has not looked."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foredraft.calibration.fitting import (
    Call,
    Samples,
    _not_negative,
    between,
    fit_curve,
    fit_line,
    fit_sums,
    points_of,
    spread_over,
    variation,
)
from foredraft.profiles import Grid, Line, Range, seconds

TOKENS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
CONTEXTS = (1, 128, 512, 2048)
REACH = Range(new_tokens=(1, 1024), context=(0, 1 << 20), batch=(1, 32))
CALLS = [Call(count, context) for count in TOKENS for context in CONTEXTS]
BATCHED = CALLS + [Call(count * 8, context * 8, 8) for count in TOKENS for context in CONTEXTS]

lines = st.builds(
    Line,
    base_s=st.floats(0.001, 0.1),
    flat_tokens=st.integers(1, 16),
    per_token_s=st.floats(1e-4, 5e-3),
    per_context_s=st.floats(1e-7, 1e-5),
    per_sequence_s=st.floats(1e-4, 1e-3),
    range=st.just(REACH),
)


def measured(line: Line, calls: list[Call], noise: float, seed: int = 0, repeats: int = 15) -> Samples:
    """What such a machine would have shown."""
    draw = random.Random(seed)
    return {
        call: [
            seconds(line, call.new_tokens, call.context, call.batch) * draw.lognormvariate(0.0, noise)
            for _ in range(repeats)
        ]
        for call in calls
    }


@settings(max_examples=25)
@given(line=lines)
def test_known_coefficients_are_recovered_from_measurements_without_noise(line: Line) -> None:
    found = fit_line(points_of(measured(line, BATCHED, 0.0)), REACH)
    assert found.flat_tokens == line.flat_tokens
    for name in ("base_s", "per_token_s", "per_context_s", "per_sequence_s"):
        assert getattr(found, name) == pytest.approx(getattr(line, name), rel=1e-3, abs=1e-9)


@settings(max_examples=25)
@given(line=lines, seed=st.integers(0, 1 << 30))
def test_with_a_little_noise_every_call_is_predicted(line: Line, seed: int) -> None:
    found = fit_line(points_of(measured(line, BATCHED, 0.02, seed)), REACH)
    for call in (*BATCHED, Call(20, 1024), Call(5, 64), Call(100, 8192, 8)):
        args = call.new_tokens, call.context, call.batch
        assert seconds(found, *args) == pytest.approx(seconds(line, *args), rel=0.06)


def test_one_wild_call_in_five_moves_nothing() -> None:
    line = Line(base_s=0.01, flat_tokens=4, per_token_s=1e-3, per_context_s=1e-6, range=REACH)
    samples = measured(line, CALLS, 0.0)
    for taken in samples.values():
        taken[::5] = [10.0] * len(taken[::5])
    found = fit_line(points_of(samples), REACH)
    assert seconds(found, 16, 512) == pytest.approx(seconds(line, 16, 512), rel=1e-6)
    assert variation(samples) == 0.0


def test_coefficients_are_never_negative() -> None:
    samples: Samples = {Call(count, context): [0.01 - 1e-4 * count] for count in TOKENS for context in CONTEXTS}
    found = fit_line(points_of(samples), REACH)
    assert found.per_token_s == 0.0
    assert found.base_s > 0.0


def test_a_straight_machine_gets_a_line_and_a_crooked_one_a_grid() -> None:
    line = Line(base_s=0.01, flat_tokens=4, per_token_s=1e-3, per_context_s=1e-6, range=REACH)
    calls, half_way = _crossed((1, 2, 4, 8, 16, 32), (1, 256, 1024))
    straight = fit_curve(measured(line, calls, 0.0), measured(line, half_way, 0.0), REACH)
    assert isinstance(straight.curve, Line)
    assert straight.worst_error < 1e-3

    def crooked(asked: list[Call]) -> Samples:  # two rows cost twice as much as one
        return {call: [0.01 if call.new_tokens < 2 else 0.02 if call.new_tokens < 8 else 0.022] for call in asked}

    calls, half_way = _crossed((1, 2, 4, 7, 8, 16), (1, 256, 1024))
    bent = fit_curve(crooked(calls), crooked(half_way), REACH)
    assert isinstance(bent.curve, Grid)
    assert bent.median_error < 0.05


def test_the_error_is_that_of_points_that_neither_made_nor_chose_the_curve() -> None:
    line = Line(base_s=0.01, per_token_s=1e-3, range=REACH)
    calls, half_way = _crossed((1, 8, 32), (1, 256, 1024))
    unseen = measured(line, half_way, 0.0)
    reported = sorted(unseen)[1::2]
    for call in reported:
        unseen[call] = [at_s * 1.25 for at_s in unseen[call]]
    found = fit_curve(measured(line, calls, 0.0), unseen, REACH)
    assert [point.call for point, _ in found.held_out] == reported
    assert found.median_error == pytest.approx(0.2, abs=1e-3)
    assert all(error < 0 for _, error in found.held_out)


def test_a_line_that_misses_the_points_it_was_fitted_to_is_not_taken() -> None:
    """One row takes 58 ms and two 107: half-way points beyond the bend say nothing of it."""
    took_s = {1: 0.058, 2: 0.107, 5: 0.110, 17: 0.150}
    calls = [Call(count, context) for count in took_s for context in (1, 256)]
    half_way = [Call(9, 16), Call(10, 16)]
    samples: Samples = {call: [took_s[call.new_tokens]] * 5 for call in calls}
    unseen: Samples = {call: [0.117 if call.new_tokens == 9 else 0.120] * 5 for call in half_way}
    curve = fit_curve(samples, unseen, REACH).curve
    assert seconds(curve, 1, 256) == pytest.approx(0.058)


def test_more_tokens_never_take_less_in_a_grid() -> None:
    falling: Samples = {Call(count, 1): [at_s] for count, at_s in ((1, 0.010), (2, 0.012), (4, 0.010), (8, 0.030))}
    found = fit_curve(falling, {Call(3, 1): [0.011], Call(6, 1): [0.02]}, REACH).curve
    times = [seconds(found, count, 1) for count in range(1, 9)]
    assert times == sorted(times)


def test_batches_are_fitted_with_a_line_where_that_is_as_good() -> None:
    line = Line(base_s=0.01, per_token_s=1e-3, per_sequence_s=1e-3, range=REACH)
    assert isinstance(fit_curve(measured(line, BATCHED, 0.0), {}, REACH).curve, Line)


def test_batches_whose_rows_bend_twice_are_fitted_with_a_grid_of_sums() -> None:
    """Rows of a small product cost much, then nothing, then little: no line has that."""

    def taken_s(call: Call) -> float:
        rows = 1e-3 * min(call.new_tokens, 4) + 2e-4 * max(0, call.new_tokens - 32)
        return 0.01 + rows + 1e-6 * call.context + 5e-4 * (call.batch - 1)

    found = fit_curve({call: [taken_s(call)] for call in BATCHED}, {}, REACH).curve
    assert isinstance(found, Grid)
    for call in (*BATCHED, Call(20, 1024), Call(8, 64, 8), Call(5, 256, 4), Call(100, 8192, 16)):
        assert seconds(found, call.new_tokens, call.context, call.batch) == pytest.approx(taken_s(call), rel=0.01)


@given(st.integers(0, 1 << 30))
@settings(max_examples=25)
def test_no_coefficient_is_negative_and_no_other_choice_is_better(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows, wanted = draw.normal(size=(12, 5)), draw.normal(size=12)
    found = _not_negative(rows, wanted)
    pull = rows.T @ (wanted - rows @ found)
    assert (found >= 0.0).all()
    assert (pull <= 1e-9).all()  # more of any would be worse (the conditions of Karush, Kuhn and Tucker)
    assert np.abs(pull[found > 0.0]).max(initial=0.0) <= 1e-9


def test_what_a_session_does_around_a_call_is_done_by_each_of_a_batch() -> None:
    line = Line(base_s=0.01, per_sequence_s=0.001, range=REACH)
    grid = fit_sums(points_of(measured(line, BATCHED, 0.0)), REACH)
    for curve in (line, grid):
        longer = spread_over(curve, 0.002)
        assert seconds(longer, 8, 8, 1) == pytest.approx(seconds(curve, 8, 8, 1))
        assert seconds(longer, 8, 8, 8) == pytest.approx(seconds(curve, 8, 8, 8) + 7 * 0.002)


@given(axis=st.lists(st.integers(1, 5000), min_size=1, unique=True))
def test_half_way_points_lie_between_and_are_none_of_the_axis(axis: list[int]) -> None:
    for found in between(axis):
        assert found not in axis
        assert min(axis) < found < max(axis)


def _crossed(tokens: tuple[int, ...], contexts: tuple[int, ...]) -> tuple[list[Call], list[Call]]:
    fitted = [Call(count, context) for count in tokens for context in contexts]
    return fitted, [Call(count, context) for count in between(tokens) for context in between(contexts)]
