"""How many kinds of texts there are, and which text is of which: a mixture of acceptances, no finer than the data say.

Each topic has a share of the texts and an acceptance; as many topics as Schwarz's criterion (BIC) allows. Since right
tokens come in runs, a text of n tokens tells less than n independent ones would: as many as their correlation leaves.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import exp, log
from typing import Final

MOST: Final = 3
_ROUNDS: Final = 60
_EDGE: Final = 1e-3

Counted = tuple[float, float]
"""How many tokens of a text the draft had right, and wrong; as if independent."""


def topics_of(texts: Sequence[Sequence[bool]]) -> list[list[int]]:
    """The numbers of the texts in each topic; of each token it is known whether the draft was right."""
    worth = _worth(texts)
    counted = [(sum(text) * worth, (len(text) - sum(text)) * worth) for text in texts]
    best = min((_mixture(counted, count) for count in range(1, min(MOST, len(texts)) + 1)), key=lambda one: one[0])
    groups: dict[int, list[int]] = {}
    for number, topic in enumerate(best[1]):
        groups.setdefault(topic, []).append(number)
    return [groups[topic] for topic in sorted(groups)]


def _worth(texts: Sequence[Sequence[bool]]) -> float:
    """How many independent tokens one is worth, by the correlation of neighbours within their texts."""
    together = apart = 0.0
    for text in texts:
        mean = sum(text) / len(text)
        off = [right - mean for right in text]
        together += sum(one * one for one in off[1:])
        apart += sum(one * other for one, other in pairwise(off))
    correlation = max(0.0, apart / together) if together else 0.0
    return (1.0 - correlation) / (1.0 + correlation)


def _mixture(counted: Sequence[Counted], count: int) -> tuple[float, list[int]]:
    """Schwarz's criterion of the best mixture of so many topics (less is better), and each text's likeliest topic."""
    ranked = sorted(right / (right + wrong) for right, wrong in counted)
    rates = [ranked[len(ranked) * (2 * topic + 1) // (2 * count)] for topic in range(count)]
    shares = [1.0 / count] * count
    for _ in range(_ROUNDS):
        belong = [_belongs(one, rates, shares)[1] for one in counted]
        for topic in range(count):
            right = sum(share[topic] * one[0] for share, one in zip(belong, counted, strict=True))
            wrong = sum(share[topic] * one[1] for share, one in zip(belong, counted, strict=True))
            rates[topic] = right / (right + wrong) if right + wrong else 0.5
            shares[topic] = sum(share[topic] for share in belong) / len(counted)
    told = [_belongs(one, rates, shares) for one in counted]
    criterion = (2 * count - 1) * log(len(counted)) - 2.0 * sum(likelihood for likelihood, _ in told)
    return criterion, [max(range(count), key=lambda topic: share[topic]) for _, share in told]


def _belongs(one: Counted, rates: Sequence[float], shares: Sequence[float]) -> tuple[float, list[float]]:
    """The logarithm of a text's likelihood, and how probably it is of each topic."""
    right, wrong = one
    logs = [
        log(max(share, 1e-9))
        + right * log(min(1.0 - _EDGE, max(_EDGE, rate)))
        + wrong * log(1.0 - min(1.0 - _EDGE, max(_EDGE, rate)))
        for rate, share in zip(rates, shares, strict=True)
    ]
    top = max(logs)
    parts = [exp(value - top) for value in logs]
    return top + log(sum(parts)), [part / sum(parts) for part in parts]
