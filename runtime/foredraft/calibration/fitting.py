"""From measured calls to a curve of the compute model, and how far off the curve is where it was not fitted.

Two shapes are tried: a ``Line`` (least squares of relative errors, no coefficient negative) and a
``Grid``, through the medians, or where batches were measured of what rows, context and sequences take
in sum. Half of the points that neither has seen decide between them, and those that a curve was fitted to without
going through them; the error that is reported is that of the other half.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from foredraft.profiles.compute import seconds
from foredraft.profiles.schema import Curve, Grid, Line, Range

_Array = NDArray[np.float64]
_MAD_TO_SIGMA: Final = 1.4826
_MOST_FLATS: Final = 64
_PULL: Final = 1e-12  # a coefficient that would lower the error by less stays 0


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """One kind of call: new tokens and context, both summed over the batch."""

    new_tokens: int
    context: int
    batch: int = 1


Samples = dict[Call, list[float]]
"""Seconds of the calls of each kind."""


@dataclass(frozen=True, slots=True)
class Point:
    """A call's median, and the median absolute deviation from it, over ``count`` repeats."""

    call: Call
    median_s: float
    mad_s: float
    count: int

    @property
    def variation(self) -> float:
        """The deviation as a share of the median, scaled to a standard deviation of normal noise."""
        return _MAD_TO_SIGMA * self.mad_s / self.median_s if self.median_s else 0.0


@dataclass(frozen=True, slots=True)
class Fit:
    """A curve, and its relative errors at the points that it was neither fitted to nor chosen by."""

    curve: Curve
    points: tuple[Point, ...]
    held_out: tuple[tuple[Point, float], ...]

    @property
    def bare(self) -> Curve:
        """The curve without the session's own part, which no single call shows."""
        return msgspec.structs.replace(self.curve, host_s=0.0)

    @property
    def median_error(self) -> float:
        """The median of the absolute errors."""
        return median(abs(error) for _, error in self.held_out) if self.held_out else 0.0

    @property
    def worst_error(self) -> float:
        """The largest of the absolute errors."""
        return max((abs(error) for _, error in self.held_out), default=0.0)


def points_of(samples: Samples) -> list[Point]:
    """The samples' medians and deviations, in order of their calls."""
    points = []
    for call, taken in sorted(samples.items()):
        middle = median(taken)
        points.append(Point(call, middle, median(abs(one - middle) for one in taken), len(taken)))
    return points


def variation(samples: Samples) -> float:
    """How much calls of one kind vary: the median over the points."""
    return median(point.variation for point in points_of(samples))


def between(axis: Sequence[int]) -> tuple[int, ...]:
    """One number between each two neighbours, where there is one: the geometric mean."""
    found = []
    for low, high in pairwise(sorted(axis)):
        if high - low >= 2:
            found.append(min(max(round((max(low, 1) * high) ** 0.5), low + 1), high - 1))
    return tuple(found)


def fit_curve(fitted: Samples, held_out: Samples, reach: Range) -> Fit:
    """The better shape of curve through ``fitted``, declared for ``reach``."""
    points, unseen = points_of(fitted), points_of(held_out)
    chooses, reports = unseen[::2], unseen[1::2] or unseen
    tells = [*points, *chooses]
    alone = all(point.call.batch == 1 for point in points)
    curves: list[tuple[Curve, Sequence[Point]]] = [(fit_line(points, reach), tells)]
    curves.append((fit_grid(points, reach), chooses or points) if alone else (fit_sums(points, reach), tells))
    curve, _ = min(curves, key=lambda one: round(_mean_error(*one), 4))
    return Fit(curve, tuple(points), tuple((point, error_at(curve, point)) for point in reports))


def error_at(curve: Curve, point: Point) -> float:
    """The curve's seconds over the measured ones, less one."""
    call = point.call
    return seconds(curve, call.new_tokens, call.context, call.batch) / point.median_s - 1.0


def _mean_error(curve: Curve, points: Sequence[Point]) -> float:
    return sum(abs(error_at(curve, point)) for point in points) / len(points)


def fit_line(points: Sequence[Point], reach: Range) -> Line:
    """The line with the least squared relative errors.

    ``flat_tokens`` is tried at each number of tokens that was measured, then between the best one's
    neighbours; the other coefficients are solved for.
    """
    counts = sorted({point.call.new_tokens for point in points})
    flats = counts[:-1] or counts  # something must be left for the slope
    coarse = min(flats, key=lambda flat: _solve(points, flat)[0])
    at = flats.index(coarse)
    near = range(flats[max(at - 1, 0)], flats[min(at + 1, len(flats) - 1)] + 1)
    flat = min((coarse, *near[:: -(-len(near) // _MOST_FLATS)]), key=lambda flat: _solve(points, flat)[0])
    base, per_token, per_context, per_sequence = _solve(points, flat)[1]
    return Line(
        base_s=_rounded(base),
        flat_tokens=flat if per_token else 0,
        per_token_s=_rounded(per_token),
        per_context_s=_rounded(per_context),
        per_sequence_s=_rounded(per_sequence),
        range=reach,
    )


def _solve(points: Sequence[Point], flat: int) -> tuple[float, _Array]:
    """The sum of the squared relative errors with so many flat tokens, and the coefficients."""
    measured = np.array([point.median_s for point in points])
    calls = [point.call for point in points]
    rows = np.array([[1.0, max(0, call.new_tokens - flat), call.context, call.batch - 1] for call in calls])
    found = _not_negative(rows / measured[:, None], np.ones(len(points)))
    return round(float(np.sum((rows @ found / measured - 1.0) ** 2)), 12), found


def _rounded(value: float) -> float:
    """To six digits, which is more than was measured."""
    return float(f"{float(value):.6g}")


def _not_negative(rows: _Array, wanted: _Array) -> _Array:
    """Least squares without negative coefficients (Lawson and Hanson 1974, chapter 23)."""
    scale = np.maximum(np.abs(rows).max(axis=0), 1e-300)
    rows = rows / scale
    found, used = np.zeros(rows.shape[1]), np.zeros(rows.shape[1], dtype=bool)
    for _ in range(3 * rows.shape[1]):
        pull = np.where(used, -np.inf, rows.T @ (wanted - rows @ found))
        if pull.max() <= _PULL * len(wanted):
            break
        used[int(pull.argmax())] = True
        while True:
            solved = np.zeros_like(found)
            solved[used] = np.linalg.lstsq(rows[:, used], wanted, rcond=None)[0]
            falling = used & (solved <= 0.0)
            if not falling.any():
                break
            step = (found[falling] / np.maximum(found[falling] - solved[falling], 1e-300)).min()
            found = found + step * (solved - found)
            used &= found > 1e-15
            found[~used] = 0.0
        found = solved
    coefficients: _Array = found / scale
    return coefficients


def fit_sums(points: Sequence[Point], reach: Range) -> Grid:
    """What rows take, bent at each number of them that was measured, and per token of context and sequence more.

    The least squared relative errors, nothing negative: more never takes less.
    """
    measured = np.array([point.median_s for point in points])
    calls = [point.call for point in points]
    knots = sorted({call.new_tokens for call in calls})
    bends = [[float(np.clip(call.new_tokens, low, high) - low) for low, high in pairwise(knots)] for call in calls]
    rows = np.array([[1.0, *bend, call.context, call.batch - 1] for bend, call in zip(bends, calls, strict=True)])
    base, *slopes, per_context, per_sequence = _not_negative(rows / measured[:, None], np.ones(len(points)))
    by_rows = [float(base)]
    for slope, (low, high) in zip(slopes, pairwise(knots), strict=True):
        by_rows.append(by_rows[-1] + float(slope) * (high - low))
    contexts, batches = (0, max(1, reach.context[1])), (1, max(2, reach.batch[1]))
    return Grid(
        new_tokens=tuple(knots),
        context=contexts,
        batch=batches,
        seconds_s=tuple(
            tuple(
                tuple(_rounded(at_s + per_context * context + per_sequence * (batch - 1)) for at_s in by_rows)
                for context in contexts
            )
            for batch in batches
        ),
        range=reach,
    )


def spread_over(curve: Curve, each_s: float) -> Curve:
    """The curve where each sequence of a batch but the first takes so many seconds more."""
    if curve.range.batch[1] == 1:
        return curve
    if isinstance(curve, Line):
        return msgspec.structs.replace(curve, per_sequence_s=_rounded(curve.per_sequence_s + each_s))
    planes = tuple(
        tuple(tuple(_rounded(at_s + each_s * (batch - 1)) for at_s in row) for row in rows)
        for batch, rows in zip(curve.batch, curve.seconds_s, strict=True)
    )
    return msgspec.structs.replace(curve, seconds_s=planes)


def fit_grid(points: Sequence[Point], reach: Range) -> Grid:
    """The medians themselves; more tokens never take less (pooled neighbours, as in isotonic regression)."""
    medians: Mapping[Call, float] = {point.call: point.median_s for point in points}
    counts = sorted({call.new_tokens for call in medians})
    contexts = sorted({call.context for call in medians})
    rows = tuple(
        tuple(round(at_s, 7) for at_s in _rising([medians[Call(count, context)] for count in counts]))
        for context in contexts
    )
    return Grid(new_tokens=tuple(counts), context=tuple(contexts), seconds_s=(rows,), range=reach)


def _rising(values: Sequence[float]) -> list[float]:
    """The nearest list that never falls: neighbours that fall are replaced by their mean (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (left, left_count), (right, right_count) = pools[-2:]
            count = left_count + right_count
            pools[-2:] = [((left * left_count + right * right_count) / count, count)]
    return [value for value, count in pools for _ in range(count)]
