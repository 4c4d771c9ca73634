"""Rejection sampling over a target's logits: what ``protocol.rejection`` decides, for the rows of a pass."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from foredraft.engines.noise import Noise, filter_logits
from foredraft.protocol import rejection
from foredraft.protocol.rejection import Trial
from foredraft.protocol.sampling import Sampling


def said(logits: Tensor, sampling: Sampling, trials: Sequence[Trial]) -> list[int]:
    """The token that comes below each row of ``logits``, ``[rows, vocab]``, whose trials these are; T is above 0."""
    scores, temperature = logits.float(), sampling.temperature
    if sampling.top_p < 1.0 or 0 < sampling.top_k < logits.shape[-1]:
        scores, temperature = filter_logits(logits, sampling), 1.0
    places = [(row, token) for row, trial in enumerate(trials) for token in trial.tokens]
    candidates = torch.tensor(places, dtype=torch.int64, device=logits.device).reshape(-1, 2).unbind(1)
    own = iter((scores[candidates].double() / temperature).tolist())
    others = scores.clone()
    others[candidates] = -torch.inf
    rests = (others / temperature).logsumexp(dim=-1).tolist()
    seeds = torch.tensor([trial.noise_seed for trial in trials], device=logits.device)
    drawn = Noise(torch.zeros_like(seeds), logits.shape[-1], seeds).best(others, temperature=temperature)
    return [
        _said(trial, [next(own) for _ in trial.tokens], rest, other)
        for trial, rest, other in zip(trials, rests, drawn.tokens[:, 0].tolist(), strict=True)
    ]


def _said(trial: Trial, scores: Sequence[float], rest: float, other: int) -> int:
    """``scores``: of the candidates; ``rest``: the logarithm of the summed exponentials of all others' scores."""
    most = max(rest, *scores) if scores else rest
    shares = [math.exp(score - most) for score in scores]
    left = math.exp(rest - most)
    whole = sum(shares) + left
    return rejection.said(trial, [share / whole for share in shares], left / whole, other)
