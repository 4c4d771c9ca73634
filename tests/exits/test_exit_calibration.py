"""Confidence: honest where it is fitted, and found out where it is not."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foredraft.exits.calibrate import TEMPERATURES, ConfidenceMap, calibration_error, fit, report
from foredraft.exits.card import TABLE_SIZE, Calibration


def observe(count: int, seed: int, temperature: float = 0.0) -> tuple[Tensor, Tensor]:
    """Best two scores whose first is right with a probability that grows with the margin in logits."""
    generator = torch.Generator().manual_seed(seed)
    margin = torch.rand(count, generator=generator, dtype=torch.float64) * 6
    right = torch.rand(count, generator=generator) < 1 - 0.6 * torch.exp(-margin)
    scores = margin / (temperature or 1.0)
    return torch.stack((scores, torch.zeros_like(scores)), dim=1), right.double()


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_fitted_map_is_honest_on_tokens_it_has_not_seen(temperature: float) -> None:
    best, right = observe(8000, 0, temperature)
    fitted = ConfidenceMap.between([fit(best[:, 0], right, temperature)], temperature)
    unseen, really = observe(8000, 1, temperature)
    assert calibration_error(fitted(unseen), really) < 0.03


def test_a_boastful_map_is_found_out() -> None:
    best, right = observe(8000, 0)
    honest = fit(best[:, 0], right, 0.0)
    boastful = Calibration(0.0, tuple(p**0.2 for p in honest.table))
    told = report(4, 0.0, ConfidenceMap.between([boastful], 0.0)(best), right)
    assert told.calibration_error > 0.05
    assert (
        told.calibration_error > 5 * report(4, 0.0, ConfidenceMap.between([honest], 0.0)(best), right).calibration_error
    )


def test_calibration_error_is_the_weighted_gap() -> None:
    confidence = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.1, 0.1])
    right = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    assert calibration_error(confidence, right) == pytest.approx((4 * 0.4 + 2 * 0.1) / 6)


def test_coverage_falls_and_precision_rises_with_the_threshold() -> None:
    best, right = observe(20_000, 2)
    told = report(4, 0.0, ConfidenceMap.between([fit(best[:, 0], right, 0.0)], 0.0)(best), right)
    coverage = [point.coverage for point in told.operating]
    precision = [point.precision for point in told.operating if point.precision is not None]
    assert coverage == sorted(coverage, reverse=True)
    assert coverage[0] > coverage[-1]
    assert precision == sorted(precision)
    assert all(found >= point.threshold - 0.03 for found, point in zip(precision, told.operating, strict=False))


def test_a_threshold_that_nothing_reaches_has_no_precision() -> None:
    told = report(4, 0.0, torch.full((10,), 0.5), torch.ones(10))
    assert told.operating[-1].coverage == 0.0
    assert told.operating[-1].precision is None
    assert told.agreement == 1.0


@given(
    st.lists(st.tuples(st.floats(0, 1e6) | st.just(float("inf")), st.booleans()), max_size=50),
    st.sampled_from(TEMPERATURES),
)
def test_whatever_was_seen_confidence_never_falls_with_the_margin_and_is_never_certain(
    seen: list[tuple[float, bool]], temperature: float
) -> None:
    margin = torch.tensor([m for m, _ in seen], dtype=torch.float64)
    right = torch.tensor([float(r) for _, r in seen], dtype=torch.float64)
    table = fit(margin, right, temperature).table
    assert len(table) == TABLE_SIZE
    assert all(low <= high for low, high in pairwise(table))
    assert all(0 < step < 1 for step in table)


def test_between_two_temperatures_the_tables_are_mixed_and_beyond_them_kept() -> None:
    low, high = Calibration(0.4, (0.2,) * TABLE_SIZE), Calibration(0.8, (0.6,) * TABLE_SIZE)
    best = torch.tensor([[1.0, 0.0]])
    found = {t: ConfidenceMap.between([low, high], t)(best).item() for t in (0.0, 0.4, 0.5, 0.8, 2.0)}
    assert found == pytest.approx({0.0: 0.2, 0.4: 0.2, 0.5: 0.3, 0.8: 0.6, 2.0: 0.6})


def test_a_margin_counts_in_logits_whatever_the_temperature() -> None:
    table = tuple(step / TABLE_SIZE for step in range(TABLE_SIZE))
    for temperature in (0.0, 0.5, 1.0, 2.0):
        chart = ConfidenceMap.between([Calibration(0.0, table), Calibration(2.0, table)], temperature)
        best = torch.tensor([[3.01 / (temperature or 1.0), 0.0]])
        assert chart(best).item() == pytest.approx(48 / TABLE_SIZE)  # 3 = 48 / (64 - 48)
