"""A fitted pair: a target and a draft that are the statistics of recorded texts, as they follow one another.

Acceptance is not the same luck at each position. Some texts go better than others (topics), right tokens come in runs,
and the first tokens of an answer are others than the rest. So a text has a topic, and at each position a state, which
depends on the state before and on whether the draft was right there; at the first positions it is drawn as at the head
of the recorded texts. What is said at a position is one of the outcomes that were seen in that state, whole: the
token's rank, the probabilities that the draft gave its choices, and what each exit said.

All of it is a function of (seed of the request, position): whatever a policy does, it meets the same luck.
"""

from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final

import msgspec

from foredraft.protocol.ports import Guess
from foredraft_sim.streams import drawn, key
from foredraft_sim.tokens.spoken import Spoken
from foredraft_sim.tokens.synthetic import SyntheticPair

RIGHT: Final = -1
"""An exit named the target's token."""
OTHER: Final = -2
"""An exit named a token that is none of the draft's choices."""
CHOICES: Final = 64
"""So many of the draft's choices have a rank."""
_NEARLY: Final = 1e-3

Distribution = tuple[float, ...]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What was said at a position. ``weight``: how often, beside the others of its state.

    ``rank``: which of the draft's choices the target's token is, from 0; -1 for none of them. ``says``: the probability
    that the draft gave to each of its choices, best first. ``exits``: of each exit, shallowest first, what it named
    (RIGHT, OTHER, or the number of a choice of the draft that was wrong) and how sure it was.
    """

    weight: float
    rank: int
    says: Distribution
    exits: tuple[tuple[int, float], ...] = ()


class Topic(_Table, frozen=True):
    """What texts of a kind are like. ``share``: of all texts.

    ``states``: the outcomes in each state. ``after_wrong``, ``after_right``: by the state before, how probable each
    state is where the draft was wrong, or right. ``head``: the same at the first positions of a text.
    """

    share: float
    states: tuple[tuple[Outcome, ...], ...]
    after_wrong: tuple[Distribution, ...]
    after_right: tuple[Distribution, ...]
    head: tuple[Distribution, ...]

    def __post_init__(self) -> None:
        count = len(self.states)
        if not self.share > 0.0:
            raise ValueError(f"share must be above 0, not {self.share}")
        if not all(self.states) or not self.states:
            raise ValueError("states must each have an outcome")
        for name in ("after_wrong", "after_right"):
            if len(getattr(self, name)) != count:
                raise ValueError(f"{name} must have {count} rows, one for each state")
        if not self.head:
            raise ValueError("head must have at least one row")
        for row in (*self.after_wrong, *self.after_right, *self.head):
            if len(row) != count or min(row) < 0.0 or abs(sum(row) - 1.0) > _NEARLY:
                raise ValueError(f"a row must have {count} probabilities with a sum of 1, not {row}")
        for one in (outcome for outcomes in self.states for outcome in outcomes):
            if not one.weight > 0.0 or not -1 <= one.rank < CHOICES:
                raise ValueError(f"an outcome needs a weight above 0 and a rank from -1 to {CHOICES - 1}: {one}")


class FittedPair(_Table, frozen=True, cache_hash=True, tag_field="kind", tag="fitted"):
    """The statistics. ``source``: where they come from. ``exits``: after which layers."""

    topics: tuple[Topic, ...]
    layers: int
    exits: tuple[int, ...] = ()
    vocab_size: int = 32000
    context: int = 1 << 20
    source: str = ""

    def __post_init__(self) -> None:
        if not self.topics:
            raise ValueError("topics must have at least one")
        if self.vocab_size < CHOICES + 3:
            raise ValueError(f"vocab_size must be above {CHOICES + 2}, not {self.vocab_size}")
        if list(self.exits) != sorted(set(self.exits)) or any(not 0 < layer < self.layers for layer in self.exits):
            raise ValueError(f"exits must ascend within the {self.layers} layers, not {list(self.exits)}")
        for one in (one for topic in self.topics for outcomes in topic.states for one in outcomes):
            if len(one.exits) != len(self.exits):
                raise ValueError(f"an outcome must tell of {len(self.exits)} exits: {one}")

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """After which layers there are exits."""
        return self.exits

    def spoken(self, seed: int, start: int) -> Spoken:
        """What is said of the request with this seed; ``start``: how long its prompt is."""
        return _text(self, seed, start)

    def told(self) -> dict[str, Any]:
        """What results say of it: the statistics themselves are in its file."""
        return {"kind": "fitted", "source": self.source, "topics": [topic.share for topic in self.topics]}

    def topic_of(self, seed: int) -> int:
        """The number of a text's topic."""
        return self.topic(drawn(key(seed, "topic")))

    def topic(self, luck: float) -> int:
        """The topic that a number between 0 and 1 falls to."""
        return _picked(list(accumulate(topic.share for topic in self.topics)), luck)

    def truth(self, seed: int, position: int) -> int:
        """The target's token."""
        return int(drawn(key(seed, "truth"), position) * self.vocab_size)


DrawnPair = SyntheticPair | FittedPair
"""Pairs that are statistics, and draw their texts."""


class _Text:
    """One text, its states as far as anybody asked."""

    def __init__(self, pair: FittedPair, seed: int, start: int) -> None:
        self._pair, self._seed, self._start = pair, seed, start
        number = pair.topic_of(seed)
        self._topic = pair.topics[number]
        self._sums = _sums(pair)[number]
        self._state = 0
        self._said: list[Outcome] = []

    def truth(self, position: int) -> int:
        return self._pair.truth(self._seed, position)

    def rank(self, position: int) -> int:
        return self._at(position).rank

    def predict(self, layer: int, position: int) -> tuple[int, float]:
        named, sure = self._at(position).exits[self._pair.exits.index(layer)]
        truth = self.truth(position)
        if named == RIGHT:
            return truth, sure
        return (truth - 1 if named == OTHER else truth + 1 + named) % self._pair.vocab_size, sure

    def guesses(self, position: int, width: int) -> list[Guess]:
        one, truth = self._at(position), self.truth(position)
        return [
            Guess(truth if rank == one.rank else (truth + 1 + rank) % self._pair.vocab_size, probability)
            for rank, probability in enumerate(one.says[:width])
        ]

    def _at(self, position: int) -> Outcome:
        index = max(0, position - self._start)
        while len(self._said) <= index:
            self._said.append(self._next(len(self._said)))
        return self._said[index]

    def _next(self, index: int) -> Outcome:
        topic = self._topic
        if index < len(topic.head):
            row = topic.head[index]
        else:
            row = (topic.after_right if self._said[-1].rank == 0 else topic.after_wrong)[self._state]
        self._state = _picked(list(accumulate(row)), drawn(key(self._seed, "state"), index))
        return topic.states[self._state][_picked(self._sums[self._state], drawn(key(self._seed, "outcome"), index))]


def _picked(sums: list[float], luck: float) -> int:
    """Which of those whose weights sum up like this the luck falls to."""
    return min(bisect_right(sums, luck * sums[-1]), len(sums) - 1)


@lru_cache(maxsize=8)
def _sums(pair: FittedPair) -> list[list[list[float]]]:
    """By topic and state, the weights of the outcomes up to each."""
    return [[list(accumulate(one.weight for one in outcomes)) for outcomes in topic.states] for topic in pair.topics]


@lru_cache(maxsize=1 << 10)
def _text(pair: FittedPair, seed: int, start: int) -> _Text:
    """One for both ends of a request."""
    return _Text(pair, seed, start)
