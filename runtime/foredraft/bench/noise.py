"""What sampling costs beside the output layer: one thread, the shape of Qwen2.5-0.5B (896 values, 151,936 tokens).

Random weights and hidden states: what is timed does not depend on them, but for the spread of the logits, which is
that of a real model's (a standard deviation of 3).
"""

import time
from collections.abc import Callable
from statistics import median

import torch

from foredraft.bench.one_thread import one_thread
from foredraft.bench.result import Figure, Result
from foredraft.engines.noise import sample
from foredraft.protocol.sampling import Sampling

WIDTH, VOCABULARY = 896, 151_936
ROWS = (5, 33)
MOST = 0.1
_SPREAD = 3.0


async def measure(turns: int = 9) -> Result:
    """Seconds of sampling over those of the output layer, for as many rows; medians of alternating turns."""
    with one_thread(), torch.inference_mode():
        figures = [figure for rows in ROWS for figure in _of(rows, turns)]
    return Result("noise", f"medians of {turns} alternating turns, one thread, T = 0.8", tuple(figures))


def _of(rows: int, turns: int) -> list[Figure]:
    generator = torch.Generator().manual_seed(rows)
    weights = torch.randn(VOCABULARY, WIDTH, generator=generator) * (_SPREAD / WIDTH**0.5)
    hidden = torch.randn(rows, WIDTH, generator=generator)
    logits, positions = hidden @ weights.T, torch.arange(rows)
    sampling = Sampling(temperature=0.8, seed=1)
    layer_s, noise_s = [], []
    for _ in range(turns):
        layer_s.append(_timed(lambda: hidden @ weights.T))
        noise_s.append(_timed(lambda: sample(logits, positions, sampling)))
    share = median(noise_s) / median(layer_s)
    return [
        Figure(f"sampling {rows} rows", median(noise_s) * 1e3, "ms"),
        Figure("over the output layer of as many", share, "x", bound=MOST),
    ]


def _timed(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s
