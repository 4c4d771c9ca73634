"""Position-keyed noise: its distribution is the filtered softmax, and it is the same for whoever asks."""

import math

import pytest
import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from foredraft.engines.noise import filter_logits, gumbel, perturb, sample
from foredraft.protocol.sampling import Sampling

DRAWS = 40_000
CHI_SQUARE_999 = {3: 16.27, 7: 24.32, 15: 37.70, 19: 43.82}
"""Quantiles at 0.999 of chi-square, by degrees of freedom."""


def logits_of(rows: int, vocabulary: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 2.0


def warped(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distribution that transformers samples from."""
    ids = torch.zeros(logits.shape[0], 1, dtype=torch.int64)
    scores = TemperatureLogitsWarper(sampling.temperature)(ids, logits)
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(ids, scores)
    if sampling.top_p < 1.0:
        scores = TopPLogitsWarper(sampling.top_p)(ids, scores)
    chances: Tensor = scores.softmax(-1)
    return chances


def chi_square(tokens: Tensor, chances: Tensor) -> tuple[float, int]:
    """The statistic, and its degrees of freedom; tokens without any chance must not occur."""
    counts = torch.bincount(tokens, minlength=chances.shape[0]).double()
    assert counts[chances == 0].sum() == 0
    kept = chances > 0
    wanted = chances[kept].double() * tokens.shape[0]
    return float(((counts[kept] - wanted) ** 2 / wanted).sum()), int(kept.sum()) - 1


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0, 0, 1.0, 1),
        Sampling(0.8, 0, 1.0, 2**63 - 1),
        Sampling(1.3, 8, 1.0, 3),
        Sampling(2.0, 0, 0.98, 4),
        Sampling(1.5, 16, 0.999, 5),
    ],
)
def test_samples_over_positions_follow_the_filtered_softmax(sampling: Sampling) -> None:
    logits = logits_of(1, 20)
    tokens = sample(logits.expand(DRAWS, -1), torch.arange(DRAWS), sampling)
    statistic, freedom = chi_square(tokens, warped(logits, sampling)[0])
    nearest = min(bound for degrees, bound in CHI_SQUARE_999.items() if degrees >= freedom)
    assert statistic < nearest


def test_samples_over_seeds_follow_the_softmax() -> None:
    logits = logits_of(1, 16)
    tokens = torch.cat([sample(logits, torch.tensor([7]), Sampling(1.0, seed=seed)) for seed in range(6000)])
    statistic, freedom = chi_square(tokens, logits.softmax(-1)[0])
    assert statistic < CHI_SQUARE_999[freedom]


def test_neighbouring_positions_are_independent() -> None:
    logits = torch.zeros(1, 4)
    tokens = sample(logits.expand(DRAWS, -1), torch.arange(DRAWS), Sampling(1.0, seed=9))
    pairs = tokens[:-1] * 4 + tokens[1:]
    statistic, freedom = chi_square(pairs, torch.full((16,), 1 / 16))
    assert statistic < CHI_SQUARE_999[freedom]


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (5, 1.0), (0, 0.7), (5, 0.7), (1, 1.0), (900, 0.3)])
def test_filters_keep_what_those_of_transformers_keep(top_k: int, top_p: float) -> None:
    logits, sampling = logits_of(50, 100), Sampling(0.7, top_k, top_p)
    torch.testing.assert_close(
        filter_logits(logits, sampling).softmax(-1).float(), warped(logits, sampling), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("top_p", [1e-9, 0.01, 0.3])
def test_top_p_keeps_the_head(top_p: float) -> None:
    logits = torch.tensor([[0.0, 5.0, 1.0]])
    assert sample(logits.expand(100, -1), torch.arange(100), Sampling(1.0, 0, top_p)).tolist() == [1] * 100


def test_temperature_zero_is_the_argmax() -> None:
    logits = logits_of(20, 50)
    assert torch.equal(sample(logits, torch.arange(20), Sampling()), logits.argmax(-1))
    assert torch.equal(perturb(logits, torch.arange(20), Sampling()), logits)


def test_noise_depends_on_seed_position_and_token_alone() -> None:
    positions, tokens = torch.arange(10).unsqueeze(1), torch.arange(30)
    noise = gumbel(4, positions, tokens)
    assert torch.equal(noise, gumbel(4, positions, tokens))
    assert torch.equal(noise[3:5, 7:9], gumbel(4, torch.tensor([[3], [4]]), torch.tensor([7, 8])))
    assert not torch.equal(noise, gumbel(5, positions, tokens))
    assert len(set(noise.flatten().tolist())) == noise.numel()


def reference(seed: int, position: int, token: int) -> float:
    """The same noise in plain integers: splitmix64's finaliser over a counter."""
    mask, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(value: int) -> int:
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        return value ^ (value >> 31)

    key = mix((position * golden + seed) & mask)
    bits = mix(mix((key + token * golden) & mask)) >> 12
    return -math.log(-math.log((bits + 0.5) * 2.0**-52))


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_noise_is_the_one_that_texts_were_written_with(seed: int) -> None:
    """A change here changes every seeded text of every user."""
    positions, tokens = [0, 1, 1000, 10**6], [0, 7, 31_999, 2**28 - 1]
    noise = gumbel(seed, torch.tensor(positions).unsqueeze(1), torch.tensor(tokens))
    wanted = [[reference(seed, position, token) for token in tokens] for position in positions]
    torch.testing.assert_close(noise, torch.tensor(wanted, dtype=torch.float64), atol=1e-12, rtol=1e-12)
