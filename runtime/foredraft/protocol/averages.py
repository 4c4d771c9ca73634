"""Averages of what was measured: recent samples count more, and a single odd one moves little."""

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise

WIDTHS = (0, 1, 3, 7, 15, 31, 63)
"""Passes are told apart by their draft nodes, roughly; with the tip these are 1, 2, 4, 8 ... tokens."""

KEPT = 5
"""Of how many passes of a width the middle is taken; ..."""

ENOUGH = 2
"""... fewer tell nothing: one that was slow by chance must not rule a width out."""

STALE_PASSES = 128
"""A width that no pass has had for so long is as good as never seen: it may be tried again."""

PRIOR_SAMPLES = 8.0
"""The drafter's, or an exit's, own word counts as much as so many samples."""

RANK_WEIGHT = 0.03
"""Share of the latest guess, or hint, in how often such are right."""


@dataclass(slots=True)
class Typical:
    """The middle of the last few samples, the lower one of two: a single slow one moves it little."""

    last: list[float] = field(default_factory=list)
    at: int = 0

    def take(self, value: float, at: int = 0) -> None:
        """One more sample, at some count of passes. Of stale ones only the least stays."""
        last = self.last
        if at - self.at > STALE_PASSES and last:
            last[:] = [min(last)]
        last.append(value)
        if len(last) > KEPT:
            del last[0]
        self.at = at

    def stale(self, at: int) -> bool:
        """Whether the last sample is long ago."""
        return bool(self.last) and at - self.at > STALE_PASSES

    @property
    def middle(self) -> float:
        """0 without samples."""
        return sorted(self.last)[(len(self.last) - 1) // 2] if self.last else 0.0


@dataclass(slots=True)
class Average:
    """A mean and a deviation over roughly the last ``1 / weight`` samples; the first ones count fully."""

    weight: float = 0.1
    mean: float = 0.0
    variance: float = 0.0
    samples: int = 0

    def take(self, value: float) -> None:
        """One more sample."""
        self.samples = samples = self.samples + 1
        share = 1.0 / samples
        if share < self.weight:
            share = self.weight
        difference = value - self.mean
        self.mean += share * difference
        self.variance = (1.0 - share) * (self.variance + share * difference * difference)

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return math.sqrt(self.variance)


@dataclass(slots=True)
class Rate:
    """How often something is right, over roughly the last ``1 / RANK_WEIGHT`` times; the first ones count fully."""

    mean: float = 0.0
    samples: int = 0

    def take(self, right: bool) -> None:
        """It was, or was not, once more."""
        self.samples = samples = self.samples + 1
        share = 1.0 / samples
        if share < RANK_WEIGHT:
            share = RANK_WEIGHT
        self.mean += share * (right - self.mean)

    def correct(self, said: float) -> float:
        """What was said of how probable it is, corrected by what was seen."""
        doubt = PRIOR_SAMPLES / (PRIOR_SAMPLES + self.samples)
        return doubt * said + (1.0 - doubt) * self.mean


def rounded(value: float) -> float:
    """To two digits: what follows from it changes seldom."""
    return float(f"{value:.2g}")


def width_class(drafted: int) -> int:
    """Which of WIDTHS a pass of so many nodes tells of: the nearest by ratio.

    Not the next wider one: passes with one node more than a width would make the next look nearly as cheap.
    """
    return bisect_left(_MOST_NODES, drafted)


_MOST_NODES = (0, *(math.isqrt(narrow * wide) for narrow, wide in pairwise(WIDTHS[1:])))
