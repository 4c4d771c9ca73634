"""From logits to guesses, with numpy: for drafters without torch."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foredraft.engines import noise_numpy
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling

Floats = NDArray[np.float32]


def best(logits: Floats, positions: Sequence[int], width: int, sampling: Sampling) -> list[list[Guess]]:
    """The ``width`` best tokens of each row of ``logits``, ``[rows, vocab]``, those that the filters drop left out.

    ``positions``: of the tokens that the rows predict.
    """
    if sampling.temperature == 0.0:
        return [_greedy(row, width) for row in logits]
    found: list[list[Guess]] = []
    for row, position in zip(logits, positions, strict=True):
        scores = noise_numpy.filtered(row, sampling)
        tokens, values, total = noise_numpy.best(scores, position, sampling.seed, width)
        chances = [math.exp(value - total) for value in values]
        found.append([Guess(*one) for one in zip(tokens, chances, strict=True) if one[1] > 0.0])
    return found


def _greedy(row: Floats, width: int) -> list[Guess]:
    tokens = noise_numpy.highest(row, width)
    best = float(row[tokens[0]])
    total = float(np.exp(row - row[tokens[0]]).sum())
    return [Guess(token, math.exp(float(row[token]) - best) / total) for token in tokens]
