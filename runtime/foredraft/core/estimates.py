"""What a session has learned of its world: decayed averages of what it measured.

Everything starts unknown. Recent samples count more, so a drift of the link or of the
acceptance is followed within a few rounds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTHS = (0, 2, 4, 8, 16, 32)
"""Passes are told apart by their draft nodes: none, up to 2, up to 4, ..."""

BINS = 10


@dataclass(slots=True)
class Average:
    """A mean and a deviation over roughly the last ``1 / weight`` samples; the first ones count fully."""

    weight: float = 0.1
    mean: float = 0.0
    variance: float = 0.0
    samples: int = 0

    def take(self, value: float) -> None:
        """One more sample."""
        self.samples += 1
        share = max(self.weight, 1.0 / self.samples)
        difference = value - self.mean
        self.mean += share * difference
        self.variance = (1.0 - share) * (self.variance + share * difference * difference)

    @property
    def deviation(self) -> float:
        """The standard deviation."""
        return math.sqrt(self.variance)


@dataclass(slots=True)
class Estimates:
    """Round trip, speeds and acceptance as seen from the edge.

    ``token_s``: cloud time per committed token, waiting included. ``ranks``: how often the
    drafter's 1st, 2nd, ... guess is right. ``right``: by what the drafter said a guess's
    probability was, how often it was right.
    """

    round_trip_s: Average = field(default_factory=lambda: Average(0.2))
    draft_step_s: Average = field(default_factory=lambda: Average(0.2))
    token_s: Average = field(default_factory=lambda: Average(0.1))
    ranks: list[Average] = field(default_factory=list)
    passes_s: list[Average] = field(default_factory=lambda: [Average(0.2) for _ in WIDTHS])
    right: list[Average] = field(default_factory=lambda: [Average(0.03) for _ in range(BINS)])

    def saw_pass(self, drafted: int, pass_s: float, waited_s: float, tokens: int) -> None:
        """A pass of ``drafted`` nodes took ``pass_s`` and committed ``tokens``."""
        self.passes_s[width_class(drafted)].take(pass_s)
        self.token_s.take((pass_s + waited_s) / tokens)

    def pass_s(self, drafted: int) -> float:
        """What a pass of so many nodes takes: as seen, or as the nearest smaller one that was seen."""
        for seen in reversed(self.passes_s[: width_class(drafted) + 1]):
            if seen.samples:
                return seen.mean
        return next((seen.mean for seen in self.passes_s if seen.samples), 0.0)

    def saw_guesses(self, said: Sequence[tuple[float, bool]]) -> None:
        """Of a node whose child is known by now: each guess's probability, and whether it was right."""
        while len(self.ranks) < len(said):
            self.ranks.append(Average(0.03))
        for rank, (probability, right) in enumerate(sorted(said, reverse=True)):
            self.ranks[rank].take(float(right))
            self.right[_bin(probability)].take(float(right))

    def rank_chances(self) -> tuple[float, ...]:
        """How often each rank is right, in steps of 0.02, so that what follows from it changes seldom."""
        return tuple(round(rank.mean * 50.0) / 50.0 for rank in self.ranks)

    def calibrated(self, probability: float) -> float:
        """How often a guess of which the drafter says this is right, as far as that is known."""
        seen = self.right[_bin(probability)]
        doubt = PRIOR_SAMPLES / (PRIOR_SAMPLES + seen.samples)
        return doubt * probability + (1.0 - doubt) * seen.mean


PRIOR_SAMPLES = 8.0
"""The drafter's own word counts as much as so many samples."""


def width_class(drafted: int) -> int:
    """Which of WIDTHS a pass of so many nodes belongs to."""
    return next((index for index, most in enumerate(WIDTHS) if drafted <= most), len(WIDTHS) - 1)


def _bin(probability: float) -> int:
    return min(BINS - 1, int(probability * BINS))
