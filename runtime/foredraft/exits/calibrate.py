"""How sure an exit may be: from the margin of its best two scores to the probability that it is right.

The confidence is a step function of the margin, noise included, in units of a logit: held-out tokens are counted in
fixed bins, and pooled until the share that is right does not fall with the margin (isotonic regression by pooling
adjacent violators; Zadrozny and Elkan, KDD 2002). One table per layer and temperature. Further features (entropy, the
chosen token's probability) were tried and bought less than 0.01 nats of log loss.

Between two fitted temperatures the tables are interpolated; beyond the last they stay as they are. Top-k and top-p are
not fitted: they leave fewer tokens to confuse, so the confidence errs on the low side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from foredraft.exits.card import TABLE_SIZE, Calibration, LayerReport, Operating

TEMPERATURES: Final = (0.0, 0.4, 0.6, 0.8, 1.0, 1.2)
THRESHOLDS: Final = (*(step / 20 for step in range(2, 20)), 0.98, 0.99)
_EDGES: Final = tuple(step / (TABLE_SIZE - step) for step in range(1, TABLE_SIZE))  # dense near 0, up to 63 logits
_PRIOR: Final = 0.1  # right and wrong tokens added to each bin, so that none is ever certain
_BINS: Final = 15


@dataclass(frozen=True, slots=True)
class ConfidenceMap:
    """Margins ``[rows]`` to probabilities ``[rows]``. ``edges``: ``[TABLE_SIZE - 1]``; ``table``: ``[TABLE_SIZE]``."""

    edges: Tensor
    table: Tensor

    def __call__(self, best: Tensor) -> Tensor:
        """The confidence of tokens whose best two scores are ``best``, ``[rows, 2]``, higher first."""
        first, second = best.unbind(-1)
        return self.table.index_select(0, torch.bucketize((first - second).to(torch.float32), self.edges))

    @classmethod
    def between(
        cls, calibrations: Sequence[Calibration], temperature: float, device: torch.device | str = "cpu"
    ) -> ConfidenceMap:
        """The map at a temperature, from those fitted at the nearest ones below and above."""
        low = max((c for c in calibrations if c.temperature <= temperature), key=_heat, default=calibrations[0])
        high = min((c for c in calibrations if c.temperature >= temperature), key=_heat, default=calibrations[-1])
        span = high.temperature - low.temperature
        share = (temperature - low.temperature) / span if span > 0.0 else 0.0
        # Scores are logits / temperature, so the edges are too. A margin of many logits at a low temperature is inf.
        edges = torch.tensor(_EDGES, dtype=torch.float32, device=device) / (temperature or 1.0)
        table = torch.lerp(torch.tensor(low.table), torch.tensor(high.table), share)
        return cls(edges, table.to(device))


def _heat(calibration: Calibration) -> float:
    return calibration.temperature


def fit(margin: Tensor, right: Tensor, temperature: float) -> Calibration:
    """The calibration of tokens winning by ``margin`` ``[n]`` (scores), ``right`` ``[n]`` (0 or 1) or not."""
    edges = torch.tensor(_EDGES, dtype=torch.float64) / (temperature or 1.0)
    bins = torch.bucketize(margin.contiguous(), edges)
    counts = torch.bincount(bins, minlength=TABLE_SIZE).tolist()
    hits = torch.bincount(bins, weights=right, minlength=TABLE_SIZE).tolist()
    pools: list[tuple[float, float, int]] = []  # tokens, right ones, bins
    for count, hit in zip(counts, hits, strict=True):
        pools.append((count + 2 * _PRIOR, hit + _PRIOR, 1))
        while len(pools) > 1 and pools[-2][1] / pools[-2][0] >= pools[-1][1] / pools[-1][0]:
            last, before = pools.pop(), pools.pop()
            pools.append((before[0] + last[0], before[1] + last[1], before[2] + last[2]))
    return Calibration(temperature, tuple(hit / count for count, hit, width in pools for _ in range(width)))


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Expected calibration error (Guo et al., ICML 2017): |confidence - share right| over bins, weighted by tokens."""
    bins = (confidence * _BINS).long().clamp(0, _BINS - 1)
    gap = torch.zeros(_BINS, dtype=torch.float64)
    gap.index_add_(0, bins, confidence.double() - right.double())
    return float(gap.abs().sum() / len(confidence))


def report(layer: int, temperature: float, confidence: Tensor, right: Tensor) -> LayerReport:
    """How good the tokens were, and how honest their confidence."""
    operating = []
    for threshold in THRESHOLDS:
        sent = confidence >= threshold
        count = int(sent.sum())
        precision = float(right[sent].double().mean()) if count else None
        operating.append(Operating(threshold, count / len(confidence), precision))
    return LayerReport(
        layer=layer,
        temperature=temperature,
        tokens=len(confidence),
        agreement=float(right.double().mean()),
        calibration_error=calibration_error(confidence, right),
        operating=tuple(operating),
    )
