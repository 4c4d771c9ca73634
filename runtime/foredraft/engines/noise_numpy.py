"""The noise of ``noise``, and its filters, with numpy: for drafters without torch. The same tokens, the same order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foredraft.protocol.sampling import Sampling

BLOCK = 64
LOOKED_AT = 8
LARGEST, HOLDER, OWN = 0, 1, 2
_GOLDEN, _MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)

Floats = NDArray[np.float64]


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))


def _uniform(seed: int, position: int, counters: NDArray[np.uint64], what: int) -> Floats:
    start = np.array([position], dtype=np.uint64) * _GOLDEN + np.uint64(seed)
    key = _mix(_mix(start) + np.uint64(what))
    bits = _mix(_mix(key + counters * _GOLDEN)) >> np.uint64(12)
    numbers: Floats = (bits.astype(np.float64) + 0.5) * 2.0**-52
    return numbers


def best(
    scores: NDArray[Any], position: int, seed: int, count: int = 1, looked_at: int = LOOKED_AT
) -> tuple[list[int], list[float], float]:
    """The ``count`` best tokens of one row, noise included, best first; their values, and what ``noise.Best`` totals.

    ``scores``: ``[vocab]``, filtered logits over the temperature, which is above 0. ``position``: that of the token.
    """
    size = len(scores)
    number = np.arange(-(-size // BLOCK), dtype=np.uint64)
    sizes = np.full(len(number), float(BLOCK))
    sizes[-1] = size - (len(number) - 1) * BLOCK
    largest = np.log(sizes) - np.log(-np.log(_uniform(seed, position, number, LARGEST)))
    holder = (_uniform(seed, position, number, HOLDER) * sizes).astype(np.int64)
    bounds = np.maximum.reduceat(scores, np.arange(0, size, BLOCK)).astype(np.float64) + largest
    order = np.argsort(-bounds, kind="stable")

    def within(blocks: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The tokens of some blocks, and their scores with noise."""
        tokens = blocks[:, None] * BLOCK + np.arange(BLOCK)
        own = np.where(tokens < size, scores[np.minimum(tokens, size - 1)].astype(np.float64), -np.inf)
        most = largest[blocks][:, None]
        truncated = -np.log(np.exp(-most) - np.log(_uniform(seed, position, tokens.astype(np.uint64), OWN)))
        noise = np.where(np.arange(BLOCK) == holder[blocks][:, None], most, truncated)
        return tokens.ravel(), (own + noise).ravel()

    tokens, perturbed = within(order[:looked_at])
    least = np.partition(perturbed, -count)[-count] if count <= len(perturbed) else -np.inf
    ahead = int(np.searchsorted(-bounds[order], -least))  # blocks that may hold something better than that
    if count > 1:
        ahead = max(ahead, 4 * looked_at)  # so that the total is of as many as torch's
    if ahead > looked_at:
        more = within(order[looked_at:ahead])
        tokens, perturbed = np.concatenate((tokens, more[0])), np.concatenate((perturbed, more[1]))
    top = _largest(perturbed, count)
    total = perturbed[top[0]] + np.log(np.exp(perturbed - perturbed[top[0]]).sum())
    return tokens[top].tolist(), perturbed[top].tolist(), float(total)


def _largest(values: NDArray[Any], count: int) -> NDArray[Any]:
    """The places of the ``count`` largest values, largest first."""
    places = np.argpartition(-values, count - 1)[:count] if count < len(values) else np.arange(len(values))
    found: NDArray[Any] = places[np.argsort(-values[places], kind="stable")]
    return found


def highest(scores: NDArray[Any], count: int) -> list[int]:
    """The ``count`` tokens of the highest scores, best first, the lower id first among equals; by way of blocks."""
    if count == 1:
        return [int(scores.argmax())]
    maxima = np.maximum.reduceat(scores, np.arange(0, len(scores), BLOCK))
    blocks = np.sort(np.argsort(-maxima, kind="stable")[:count])
    tokens = (blocks[:, None] * BLOCK + np.arange(BLOCK)).ravel()
    tokens = tokens[tokens < len(scores)]
    found: list[int] = tokens[np.argsort(-scores[tokens], kind="stable")[:count]].tolist()
    return found


def filtered(logits: NDArray[Any], sampling: Sampling) -> NDArray[Any]:
    """``noise.filter_logits`` of one row, ``[vocab]``; the temperature is above 0."""
    if sampling.top_p == 1.0 and not 0 < sampling.top_k < len(logits):
        plain: NDArray[Any] = logits / logits.dtype.type(sampling.temperature)
        return plain
    scores: NDArray[Any] = logits.astype(np.float64) / sampling.temperature
    if 0 < sampling.top_k < len(scores):
        scores[scores < np.partition(scores, -sampling.top_k)[-sampling.top_k]] = -np.inf
    if sampling.top_p < 1.0:
        order = np.argsort(-scores, kind="stable")
        chances = np.exp(scores[order] - scores[order[0]])
        chances /= chances.sum()
        scores[order[np.cumsum(chances) - chances >= sampling.top_p]] = -np.inf
    return scores
