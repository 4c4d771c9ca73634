"""Rejection sampling of drafts (Leviathan et al., 2023; Chen et al., 2023), the second acceptance rule: pure functions.

A **proposal** is what the draft thinks comes next at a prefix of the text: a few candidates, each with a weight of 16
bits. Both ends draw the same order of its candidates, without replacement, from chance keyed by (seed, prefix); the
edge drafts the first ones. The cloud tries them in that order against the target's distribution p: one is accepted
with probability min(1, p/q), else p becomes what is left of it, max(p - q, 0), and q what is left without it (recursive
rejection, as in SpecInfer, Miao et al., 2024, and without replacement, Yang et al., 2024). What no candidate is
accepted for is drawn from what is left of p in the end. So the token has the distribution p, whichever of the
candidates the edge's tree happens to hold: the tree is only where the next pass may go on.

That needs the whole of q in the cloud. From the probability of the drafted token alone, the only exact rule is to
accept it with probability p (docs/adr/0030); so the draft itself is cut to its candidates.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from foredraft.protocol.anchor import Anchor
from foredraft.protocol.sampling import Sampling

CANDIDATES: Final = 16
"""Of a proposal, unless the draft has fewer."""
MOST_WEIGHT: Final = (1 << 16) - 1

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_UNIT: Final = 2.0**-53
# What is drawn at a prefix: the order of candidates, whether each is accepted, what takes their place, and the seed
# of the noise that draws it from all other tokens.
_ORDER, _ACCEPT, _REST, _NOISE = range(4)


class Proposal(msgspec.Struct, frozen=True, gc=False):
    """The draft's distribution at one prefix: ``weights[i]`` of ``tokens[i]``, 1 to 65,535, likeliest first."""

    tokens: tuple[int, ...]
    weights: tuple[int, ...]


class Trial(msgspec.Struct, frozen=True, gc=False):
    """How one row of a pass gets its token: ``key`` is of its prefix; the candidates are in the order of trial.

    Without any, the token is drawn from the target's distribution.
    """

    key: int
    tokens: tuple[int, ...] = ()
    weights: tuple[int, ...] = ()

    @property
    def noise_seed(self) -> int:
        """The seed, 63 bits, of the noise that draws a token which is no candidate."""
        return _number(self.key, _NOISE, 0) >> 1


def _mix(value: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _number(key: int, what: int, counter: int) -> int:
    """64 bits."""
    return _mix((_mix((key + what * _GOLDEN) & _MASK) + counter * _GOLDEN) & _MASK)


def _uniform(key: int, what: int, counter: int) -> float:
    """In [0, 1)."""
    return (_number(key, what, counter) >> 11) * _UNIT


def key_of(seed: int, prefix: Anchor) -> int:
    """What keys all chance at a prefix. Another prefix, even at the same position, has chance of its own."""
    return _mix((_mix((seed + prefix.position * _GOLDEN) & _MASK) + prefix.hash) & _MASK)


def propose(likeliest: Mapping[int, float], sampling: Sampling) -> Proposal:
    """The proposal that a draft's likeliest tokens make at this temperature, above 0, and with these filters.

    ``likeliest``: with their probabilities at temperature 1, likeliest first. What is not among them is never
    proposed, so any such list makes a proposal; the better it is, the more is accepted.
    """
    kept = [(token, chance) for token, chance in likeliest.items() if chance > 0.0][: sampling.top_k or None]
    most = max((chance for _, chance in kept), default=1.0)
    shares = [(chance / most) ** (1.0 / sampling.temperature) for _, chance in kept]
    if sampling.top_p < 1.0:
        shares = _head(shares, sampling.top_p)
    weighed = [(token, round(MOST_WEIGHT * share)) for (token, _), share in zip(kept, shares, strict=False)]
    found = [(token, weight) for token, weight in weighed if weight]
    return Proposal(tuple([token for token, _ in found]), tuple([weight for _, weight in found]))


def _head(shares: Sequence[float], top_p: float) -> list[float]:
    """The first of them whose part of the whole reaches ``top_p``."""
    total, mass, head = sum(shares), 0.0, []
    for share in shares:
        if mass >= top_p * total:
            break
        head.append(share)
        mass += share
    return head


def trial(key: int, proposal: Proposal | None) -> Trial:
    """The order in which a proposal's candidates are drafted and tried: drawn without replacement by their weights."""
    if proposal is None:
        return Trial(key)
    left, total = list(range(len(proposal.tokens))), sum(proposal.weights)
    order: list[int] = []
    while left:
        mark = (_number(key, _ORDER, len(order)) * total) >> 64
        for place in left:
            mark -= proposal.weights[place]
            if mark < 0:
                break
        left.remove(place)
        total -= proposal.weights[place]
        order.append(place)
    return Trial(
        key, tuple([proposal.tokens[place] for place in order]), tuple([proposal.weights[place] for place in order])
    )


def said(tried: Trial, probabilities: Sequence[float], rest: float, other: int) -> int:
    """The token that comes, distributed as the target says.

    ``probabilities``: the target's, of the candidates in order; ``rest``: of all others together. ``other``: one of
    those, drawn from the target's distribution over them; of no account where ``rest`` is 0.
    """
    tokens, weights, key = tried.tokens, tried.weights, tried.key
    left, proposed = list(probabilities), float(sum(weights))  # of p on the candidates, and of q
    for place, token in enumerate(tokens):
        whole = sum(left) + rest
        if _uniform(key, _ACCEPT, place) * whole * weights[place] / proposed < left[place]:
            return token
        for later in range(place, len(tokens)):
            left[later] = max(0.0, left[later] - whole * weights[later] / proposed)
        proposed -= weights[place]
    mark = _uniform(key, _REST, 0) * (sum(left) + rest)
    for token, share in zip(tokens, left, strict=True):
        mark -= share
        if mark < 0.0:
            return token
    return other if rest > 0.0 or not tokens else tokens[left.index(max(left))]
