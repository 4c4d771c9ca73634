"""The compute model: closed forms of the line, interpolation of the grid, shares and residuals."""

import math
from random import Random
from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.profiles import (
    Grid,
    Line,
    Model,
    Range,
    TargetProfile,
    outside,
    residual_factor,
    seconds,
    share_after,
)
from foredraft.profiles.compute import Within, curve_for
from foredraft.profiles.schema import Curve

RANGE = Range(new_tokens=(1, 64), context=(0, 4096), batch=(1, 4))
LINE = Line(
    base_s=0.01,
    flat_tokens=8,
    per_token_s=0.001,
    per_context_s=1e-6,
    per_sequence_s=0.002,
    host_s=0.0005,
    range=RANGE,
)
GRID = Grid(
    new_tokens=(1, 8, 64),
    context=(0, 1000),
    batch=(1, 2),
    seconds_s=(
        ((0.010, 0.010, 0.066), (0.012, 0.012, 0.068)),
        ((0.011, 0.011, 0.067), (0.014, 0.014, 0.070)),
    ),
    host_s=0.001,
    range=RANGE,
)


def test_a_line_is_flat_while_memory_bound_and_linear_beyond() -> None:
    assert seconds(LINE, 1, 0) == seconds(LINE, 8, 0) == pytest.approx(0.0105)
    assert seconds(LINE, 20, 0) == pytest.approx(0.0105 + 0.012)
    assert seconds(LINE, 8, 1000) == pytest.approx(0.0115)
    assert seconds(LINE, 8, 0, batch=3) == pytest.approx(0.0145)


@pytest.mark.parametrize("b", [0, 1])
@pytest.mark.parametrize("c", [0, 1])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_grid_gives_its_own_points_back(b: int, c: int, n: int) -> None:
    found = seconds(GRID, GRID.new_tokens[n], GRID.context[c], GRID.batch[b])
    assert found == pytest.approx(GRID.seconds_s[b][c][n] + 0.001)


def test_a_grid_is_linear_between_its_points_and_goes_on_beyond_them() -> None:
    assert seconds(GRID, 36, 0) == pytest.approx(0.001 + 0.038)
    assert seconds(GRID, 1, 500) == pytest.approx(0.001 + 0.011)
    assert seconds(GRID, 120, 0) == pytest.approx(0.001 + 0.122)


@given(new_tokens=st.integers(1, 64), context=st.integers(0, 1000), batch=st.integers(1, 2))
def test_a_grid_stays_within_its_points(new_tokens: int, context: int, batch: int) -> None:
    assert 0.011 - 1e-12 <= seconds(GRID, new_tokens, context, batch) <= 0.071 + 1e-12


@given(
    curve=st.sampled_from([LINE, GRID]),
    new_tokens=st.integers(0, 70),
    context=st.integers(0, 5000),
    batch=st.integers(1, 5),
)
def test_a_curve_made_ready_says_the_same_within_its_range_and_nothing_beyond(
    curve: Curve, new_tokens: int, context: int, batch: int
) -> None:
    within = Within(curve)
    expected = None if outside(curve, new_tokens, context, batch) else seconds(curve, new_tokens, context, batch)
    assert within.seconds(new_tokens, context, batch) == within.seconds(new_tokens, context, batch) == expected


def test_what_is_outside_the_declared_range_is_named_with_its_value() -> None:
    assert outside(LINE, 64, 4096, 4) == ""
    assert outside(LINE, 65, 0) == "new_tokens 65 (declared: 1 to 64)"
    assert outside(LINE, 0, 5000, 5) == (
        "new_tokens 0 (declared: 1 to 64), context 5000 (declared: 0 to 4096), batch 5 (declared: 1 to 4)"
    )


def test_a_call_larger_than_its_curve_lies_on_the_prefill_curve() -> None:
    profile = TargetProfile(
        name="t",
        title="t",
        kind="target",
        model=Model(name="m", layers=4),
        target_pass=LINE,
        prefill=GRID,
    )
    assert curve_for(profile, 64) is LINE
    assert curve_for(profile, 65) is GRID


def test_layers_take_equal_shares_and_the_head_the_rest() -> None:
    model = Model(name="m", layers=32, head_share=0.2)
    assert [share_after(model, k, 8) for k in (2, 4, 8)] == pytest.approx([0.2, 0.4, 0.8])


def test_residual_factors_have_mean_one_and_the_coefficient_of_variation() -> None:
    stream = Random(1)
    factors = [residual_factor(0.1, stream.gauss(0.0, 1.0)) for _ in range(20_000)]
    assert mean(factors) == pytest.approx(1.0, abs=0.005)
    assert stdev(factors) == pytest.approx(0.1, abs=0.005)
    assert residual_factor(0.0, 3.0) == 1.0
    assert all(math.isfinite(factor) and factor > 0 for factor in factors)
