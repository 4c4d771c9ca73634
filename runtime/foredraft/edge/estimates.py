"""What a session has learned of its world: decayed averages of what it measured.

Everything starts unknown. Recent samples count more, so a drift of the link or of the
acceptance is followed within a few rounds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from foredraft.protocol.averages import ENOUGH, WIDTHS, Average, Rate, Typical, rounded, width_class

UNSEEN = 1.1
"""What a pass of the next width is thought to take, before enough were seen: this many times as long."""

BINS = 10


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The estimates at one moment, rounded so that what follows from them changes seldom.

    ``round_trip_spread_s``: standard deviation. ``passes_s``: by WIDTHS, 0 for those that too little is
    known of: never seen, once only, or long ago.
    ``token_s``: cloud time per committed token, waiting included;
    ``tokens``: committed tokens per pass; ``drafted``: draft nodes per pass that had any.
    ``samples``: of what was seen least often among round trips, draft steps and guesses. ``token_spread_s``: what the
    time of n tokens varies by is this times the root of n; waiting and luck are in it.
    """

    round_trip_s: float
    round_trip_spread_s: float
    draft_step_s: float
    token_s: float
    tokens: float
    drafted: float
    passes_s: tuple[float, ...]
    ranks: tuple[float, ...]
    samples: int
    token_spread_s: float = 0.0

    def pass_s(self, drafted: int) -> float:
        """What a pass of so many nodes takes.

        Where too little is known: the nearest smaller one and a tenth more per class, or a wider one if
        that takes less.
        """
        width = width_class(drafted)
        wider_s = [known_s for known_s in self.passes_s[width:] if known_s]
        for known in range(width, -1, -1):
            if self.passes_s[known]:
                return min([self.passes_s[known] * UNSEEN ** (width - known), *wider_s])
        return min(wider_s, default=0.0)

    @property
    def widest(self) -> int:
        """The most nodes of which it is known what a pass takes."""
        return max((nodes for nodes, known_s in zip(WIDTHS, self.passes_s, strict=True) if known_s), default=0)


@dataclass(slots=True)
class Estimates:
    """Round trip, speeds and acceptance as seen from the edge.

    ``round_s``, ``tokens``: cloud time, waiting included, and committed tokens, per pass; ``drafted``:
    draft nodes in a pass that had any.
    ``ranks``: how often the drafter's 1st, 2nd, ... guess is right. ``right``: by what the
    drafter said a guess's probability was, how often it was right. ``hints``: the same by layer, of
    each step of a hint: by the confidence that the exit had in it. ``length``: tokens of texts that ended by
    themselves.
    """

    round_trip_s: Average = field(default_factory=lambda: Average(0.2))
    draft_step_s: Average = field(default_factory=lambda: Average(0.2))
    round_s: Average = field(default_factory=lambda: Average(0.1))
    tokens: Average = field(default_factory=lambda: Average(0.1))
    drafted: Average = field(default_factory=lambda: Average(0.1))
    ranks: list[Rate] = field(default_factory=list)
    length: Average = field(default_factory=lambda: Average(0.2))
    passes: int = 0
    passes_s: list[Typical] = field(default_factory=lambda: [Typical() for _ in WIDTHS])
    right: list[Rate] = field(default_factory=lambda: new_bins())
    hints: dict[int, list[Rate]] = field(default_factory=dict)
    _floors: dict[tuple[int, float], float | None] = field(default_factory=dict)
    _taken: tuple[tuple[int, ...], Snapshot] | None = None

    def saw_pass(self, drafted: int, pass_s: float, waited_s: float, tokens: int) -> None:
        """A pass of ``drafted`` nodes took ``pass_s`` and committed ``tokens``."""
        self.passes += 1
        self.passes_s[width_class(drafted)].take(pass_s, self.passes)
        self.round_s.take(pass_s + waited_s)
        self.tokens.take(tokens)
        if drafted:
            self.drafted.take(drafted)

    def told_passes(self, passes_s: Sequence[float]) -> None:
        """The cloud's word for what passes take, by WIDTHS, 0 where it knows nothing: it serves until one is seen."""
        for seen, pass_s in zip(self.passes_s, passes_s, strict=False):
            if pass_s and not seen.last:
                seen.last[:], seen.at = [pass_s] * ENOUGH, self.passes

    def saw_guesses(self, said: Sequence[tuple[float, bool]]) -> None:
        """Of a node whose child is known by now: each guess's probability, and whether it was right."""
        ranks = self.ranks
        for rank, (probability, right) in enumerate(sorted(said, reverse=True) if len(said) > 1 else said):
            if rank == len(ranks):
                ranks.append(Rate())
            ranks[rank].take(right)
            self.right[_bin(probability)].take(right)

    def saw_hint(self, layer: int, confidence: float, right: bool) -> None:
        """One step of a hint, which the exit was so sure of, is decided by a commit."""
        bins = self.hints.setdefault(layer, new_bins())
        bins[_bin(confidence)].take(right)
        self._floors.clear()

    def hint_right(self, layer: int, confidence: float) -> float:
        """How often a step of this layer's hints of which the exit is so sure is right, as far as that is known."""
        bins = self.hints.get(layer)
        return confidence if bins is None else bins[_bin(confidence)].correct(confidence)

    def hint_floor(self, layer: int, least: float) -> float | None:
        """From which confidence on this layer's hints are right at least so often; None: at no confidence."""
        key = (layer, least)
        if key not in self._floors:
            self._floors[key] = self._hint_floor(layer, least)
        return self._floors[key]

    def _hint_floor(self, layer: int, least: float) -> float | None:
        """Down from the greatest confidence, bin by bin; what is below ``least`` is not asked for at all."""
        floor = None
        for index in range(BINS - 1, _bin(least) - 1, -1):
            lowest = max(least, index / BINS)
            if self.hint_right(layer, (lowest + (index + 1) / BINS) / 2) < least:
                break
            floor = lowest
        return floor

    def snapshot(self) -> Snapshot:
        """All of it, at this moment. Asked much more often than anything changes."""
        guessed = self.ranks[0].samples if self.ranks else 0
        state = (guessed, self.round_trip_s.samples, self.draft_step_s.samples, self.passes)
        if self._taken is None or self._taken[0] != state:
            self._taken = (state, self._snapshot(guessed))
        return self._taken[1]

    def _snapshot(self, guessed: int) -> Snapshot:
        return Snapshot(
            round_trip_s=rounded(self.round_trip_s.mean),
            round_trip_spread_s=rounded(self.round_trip_s.deviation),
            draft_step_s=rounded(self.draft_step_s.mean),
            token_s=rounded(self.round_s.mean / self.tokens.mean) if self.tokens.samples else 0.0,
            tokens=rounded(self.tokens.mean),
            drafted=rounded(self.drafted.mean),
            passes_s=tuple(self._known_s()),
            ranks=tuple(round(rank.mean * 50.0) / 50.0 for rank in self.ranks),
            samples=min(guessed, self.round_trip_s.samples, self.draft_step_s.samples),
            token_spread_s=rounded(self._token_spread_s()),
        )

    def _token_spread_s(self) -> float:
        """By the passes of a text as renewals: each brings some tokens after some time, and both vary."""
        if not self.tokens.samples:
            return 0.0
        token_s = self.round_s.mean / self.tokens.mean
        return math.sqrt((self.round_s.variance + token_s**2 * self.tokens.variance) / self.tokens.mean)

    def _known_s(self) -> list[float]:
        """What passes take by width, 0 where too little tells.

        Decoding alone is judged from the first on, and never takes longer than a wider pass.
        """
        alone, *wider = self.passes_s
        known_s = [
            0.0 if len(seen.last) < ENOUGH or seen.stale(self.passes) else rounded(seen.middle) for seen in wider
        ]
        return [min([rounded(alone.middle), *filter(None, known_s)]) if alone.last else 0.0, *known_s]

    def calibrated(self, probability: float) -> float:
        """How often a guess of which the drafter says this is right, as far as that is known."""
        return self.right[_bin(probability)].correct(probability)


def new_bins() -> list[Rate]:
    """How often what was said with some confidence was right, by the confidence."""
    return [Rate() for _ in range(BINS)]


def _bin(probability: float) -> int:
    index = int(probability * BINS)
    return index if index < BINS else BINS - 1
