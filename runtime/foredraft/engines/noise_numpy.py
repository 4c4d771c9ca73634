"""The noise of ``noise``, drawn with numpy: for drafters on devices without torch. The same tokens, the same order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

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
) -> tuple[list[int], list[float]]:
    """The ``count`` best tokens of one row, noise included, best first, and their values.

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
    while True:
        inside = order[:looked_at]
        tokens = inside[:, None] * BLOCK + np.arange(BLOCK)
        own = np.where(tokens < size, scores[np.minimum(tokens, size - 1)].astype(np.float64), -np.inf)
        most = largest[inside][:, None]
        drawn = _uniform(seed, position, tokens.astype(np.uint64), OWN)
        truncated = -np.log(np.exp(-most) - np.log(drawn))
        perturbed = (own + np.where(np.arange(BLOCK) == holder[inside][:, None], most, truncated)).ravel()
        top = np.argsort(-perturbed, kind="stable")[:count]
        if looked_at >= len(order) or perturbed[top[-1]] >= bounds[order[looked_at]]:
            return tokens.ravel()[top].tolist(), perturbed[top].tolist()
        looked_at *= 4
