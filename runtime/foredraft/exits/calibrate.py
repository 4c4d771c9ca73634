"""How sure an exit may be: from what it sees to the probability that the whole model will say the same.

What it sees of a token (``features``) goes through a logistic function (Platt, 1999), and that score through a
monotone table (isotonic regression by pooling adjacent violators; Zadrozny and Elkan, KDD 2002). Both are fitted on
held-out text per layer and temperature. Between two fitted temperatures weights and table are interpolated; beyond
the last one they stay as they are. Top-k and top-p are not fitted: they make agreement likelier, so the
confidence errs on the low side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from foredraft.exits.card import Calibration, LayerReport, Operating

TEMPERATURES: Final = (0.0, 0.4, 0.6, 0.8, 1.0, 1.2)
KNOTS: Final = 33
THRESHOLDS: Final = (*(step / 20 for step in range(2, 20)), 0.98, 0.99)
_BINS: Final = 15
_FITTING_BINS: Final = 50
_MAX_MARGIN: Final = 1e4


def features(logits: Tensor, best: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """What a head sees of its own choice: ``[rows, 3]`` float32, the last column 1.

    ``logits``: ``[rows, vocab]``. ``best``: ``[rows, 2]``, the two highest scores, noise included. ``tokens``:
    ``[rows]``, the chosen ones. The columns are the margin of the two (in units of a logit, on a square-root scale)
    and how far the chosen token lies below the likeliest one, which is large where noise chose it.
    """
    margin = (best[:, 0] - best[:, 1]).float().clamp(max=_MAX_MARGIN)
    if temperature > 0.0:
        margin = margin * temperature
    below = logits.amax(dim=-1) - logits.gather(1, tokens.unsqueeze(1)).squeeze(1)
    return torch.stack((margin.sqrt(), below.float().sqrt(), torch.ones_like(margin)), dim=1)


@dataclass(frozen=True, slots=True)
class ConfidenceMap:
    """Features ``[rows, F]`` to probabilities ``[rows]``. ``table``: ``[KNOTS]``, over scores evenly in 0..1."""

    weights: Tensor
    table: Tensor

    def __call__(self, seen: Tensor) -> Tensor:
        place = torch.mv(seen, self.weights).sigmoid_().mul_(len(self.table) - 1)
        low = place.long().clamp_(max=len(self.table) - 2)
        return torch.lerp(self.table[low], self.table[low + 1], place - low)

    @classmethod
    def between(
        cls, calibrations: Sequence[Calibration], temperature: float, device: torch.device | str = "cpu"
    ) -> ConfidenceMap:
        """The map at a temperature, from those fitted at the nearest ones below and above."""
        below = max((c for c in calibrations if c.temperature <= temperature), key=_heat, default=None)
        above = min((c for c in calibrations if c.temperature >= temperature), key=_heat, default=None)
        low, high = below or above, above or below
        if low is None or high is None:
            raise ValueError("no calibration to choose from")
        span = high.temperature - low.temperature
        share = (temperature - low.temperature) / span if span else 0.0

        def mix(a: Sequence[float], b: Sequence[float]) -> Tensor:
            return torch.lerp(torch.tensor(a), torch.tensor(b), share).to(device)

        return cls(mix(low.weights, high.weights), mix(low.table, high.table))


def _heat(calibration: Calibration) -> float:
    return calibration.temperature


def fit(seen: Tensor, right: Tensor, temperature: float) -> Calibration:
    """The calibration of tokens with features ``seen`` ``[n, F]`` that were ``right`` ``[n]`` (0 or 1) or not."""
    weights = _fit_logistic(seen.double(), right.double())
    scores = torch.sigmoid(seen.double() @ weights)
    return Calibration(temperature, tuple(weights.tolist()), tuple(_fit_table(scores, right.double())))


def _fit_logistic(seen: Tensor, right: Tensor) -> Tensor:
    """Logistic regression by Newton's method, with a small ridge so that separable data stay finite."""
    weights = torch.zeros(seen.shape[1], dtype=seen.dtype)
    ridge = 1e-3 * torch.eye(seen.shape[1], dtype=seen.dtype)
    for _ in range(25):
        odds = torch.sigmoid(seen @ weights)
        curve = (odds * (1 - odds)).clamp(min=1e-6)
        gradient = seen.T @ (odds - right) / len(seen) + ridge @ weights / len(seen)
        hessian = (seen * curve.unsqueeze(1)).T @ seen / len(seen) + ridge
        step = torch.linalg.solve(hessian, gradient)
        weights -= step
        if float(step.abs().max()) < 1e-9:
            break
    return weights


def _fit_table(scores: Tensor, right: Tensor) -> list[float]:
    """Isotonic regression of ``right`` on ``scores``, read off at ``KNOTS`` even points."""
    order = scores.argsort()
    # Bins of equal mass, each with one right and one wrong token added: no bin is ever certain.
    blocks: list[tuple[float, float, float]] = []  # tokens, sum of right, sum of scores
    for part in order.tensor_split(min(_FITTING_BINS, len(order))):
        count, hits, place = float(len(part)), float(right[part].sum()), float(scores[part].sum())
        blocks.append((count + 2.0, hits + 1.0, place * (count + 2.0) / count))
        while len(blocks) > 1 and blocks[-2][1] / blocks[-2][0] >= blocks[-1][1] / blocks[-1][0]:
            last, previous = blocks.pop(), blocks.pop()
            blocks.append((last[0] + previous[0], last[1] + previous[1], last[2] + previous[2]))
    places = torch.tensor([place / count for count, _, place in blocks], dtype=torch.float64)
    values = torch.tensor([hits / count for count, hits, _ in blocks], dtype=torch.float64)
    return _interpolate(torch.linspace(0, 1, KNOTS, dtype=torch.float64), places, values)


def _interpolate(wanted: Tensor, places: Tensor, values: Tensor) -> list[float]:
    """Piecewise linear through (places, values), flat beyond both ends."""
    if len(places) == 1:
        return values.expand(len(wanted)).tolist()
    high = torch.searchsorted(places, wanted).clamp(1, len(places) - 1)
    share = ((wanted - places[high - 1]) / (places[high] - places[high - 1])).clamp(0, 1)
    return torch.lerp(values[high - 1], values[high], share).tolist()


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
