"""How far simulated figures are from real ones: errors, distances of distributions, rankings, regret. Pure."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from foredraft.observe.aggregate import percentile
from foredraft_sim.scenario.results import interval


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors of simulated over real figures: of their absolute values the mean and percentiles.

    ``bias``: the mean of the errors themselves; above 0, the simulation is too slow.
    """

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    bias: float


def errors_of(real: Sequence[float], simulated: Sequence[float]) -> Errors:
    """The errors, pair by pair. Real figures must be above 0. Raises ValueError for lists that do not match."""
    found = [ours / theirs - 1.0 for theirs, ours in zip(real, simulated, strict=True)]
    if not found:
        raise ValueError("no pairs to compare")
    sizes = sorted(map(abs, found))
    return Errors(
        len(found), fmean(sizes), percentile(sizes, 50), percentile(sizes, 90), percentile(sizes, 99), fmean(found)
    )


def ks_distance(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest distance between two empirical distribution functions (Kolmogorov and Smirnov), 0 to 1."""
    if not one or not other:
        raise ValueError("a distribution of nothing")
    left, right = sorted(one), sorted(other)
    return max(abs(bisect_right(left, at) / len(left) - bisect_right(right, at) / len(right)) for at in (*left, *right))


@dataclass(frozen=True, slots=True)
class Ranking:
    """Whether the simulation ranks policies as reality does. Lower is better.

    ``swapped``: pairs that it ranks the other way, though reality tells them apart: session by session, one
    takes longer by more than ``tie``, as a share, at 95% confidence. ``pairs``: how many reality tells apart.
    ``regret``: what following the simulation's choice costs over reality's own best, as a share.
    """

    real: tuple[str, ...]
    simulated: tuple[str, ...]
    swapped: tuple[tuple[str, str], ...]
    pairs: int
    regret: float
    tie: float

    @property
    def kept(self) -> bool:
        """Whether no pair is swapped."""
        return not self.swapped


def ranking_of(
    real: Mapping[str, Sequence[float]], simulated: Mapping[str, Sequence[float]], tie: float = 0.02
) -> Ranking:
    """The ranking by the means over each policy's sessions, which are in the same order for all."""
    theirs = {policy: fmean(values) for policy, values in real.items()}
    ours = {policy: fmean(simulated[policy]) for policy in real}
    told_apart = [
        (one, other)
        for one, other in combinations(sorted(theirs, key=theirs.__getitem__), 2)
        if _surely_longer(real[other], real[one], tie)
    ]
    chosen = min(ours, key=ours.__getitem__)
    return Ranking(
        tuple(sorted(theirs, key=theirs.__getitem__)),
        tuple(sorted(ours, key=ours.__getitem__)),
        tuple((one, other) for one, other in told_apart if ours[one] > ours[other]),
        len(told_apart),
        theirs[chosen] / min(theirs.values()) - 1.0,
        tie,
    )


def _surely_longer(these: Sequence[float], those: Sequence[float], tie: float) -> bool:
    """Whether ``these`` are longer, pair by pair, by more than ``tie``; one pair is taken at its word."""
    ratios = [this / that - 1.0 for this, that in zip(these, those, strict=True)]
    bounds = interval(ratios)
    return (fmean(ratios) if bounds is None else bounds[0]) > tie
