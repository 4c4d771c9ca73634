"""Position-keyed noise: its distribution is the filtered softmax, and it is the same for whoever asks."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from foredraft.engines import noise_numpy
from foredraft.engines.noise import BLOCK, HOLDER, LARGEST, OWN, Noise, best, filter_logits, perturb, sample
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


def test_noise_depends_on_seed_position_and_vocabulary_alone() -> None:
    positions = torch.arange(10)
    noise = Noise(positions, 300, 4).every()
    assert torch.equal(noise, Noise(positions, 300, 4).every())
    assert torch.equal(noise[3:5], Noise(torch.tensor([3, 4]), 300, 4).every())
    assert not torch.equal(noise, Noise(positions, 300, 5).every())
    assert len(set(noise.flatten().tolist())) == noise.numel()


def test_all_of_the_noise_is_gumbel_noise() -> None:
    """Kolmogorov and Smirnov: at 0.999, the largest distance of 200,000 values is below 1.95 / sqrt(200,000)."""
    values = Noise(torch.arange(200), 1000, 3).every().flatten().sort().values
    expected = torch.exp(-torch.exp(-values))
    steps = torch.arange(1, len(values) + 1, dtype=torch.float64) / len(values)
    assert float((expected - steps).abs().max()) < 1.95 / math.sqrt(len(values))


@pytest.mark.parametrize("vocabulary", [5_000, 5_056, 40_000])
@pytest.mark.parametrize("sampling", [Sampling(1.0, seed=1), Sampling(0.6, 50, 0.9, 2), Sampling(100.0, seed=3)])
def test_the_best_are_the_best_of_all_however_few_blocks_are_looked_at(vocabulary: int, sampling: Sampling) -> None:
    logits, positions = logits_of(12, vocabulary, 7), torch.arange(12) + 100
    scores, noise = filter_logits(logits, sampling), Noise(positions, vocabulary, sampling.seed)
    wanted = (scores.double() + noise.every()).topk(4, dim=-1)
    for looked_at in (1, 8, 10_000):
        found = noise.best(scores, 4, looked_at=looked_at)
        there = wanted.values.isfinite()  # filters may leave fewer
        assert torch.equal(found.tokens[there], wanted.indices[there])
        torch.testing.assert_close(found.values, wanted.values, rtol=0.0, atol=1e-9)
    assert torch.equal(sample(logits, positions, sampling), wanted.indices[:, 0])


def test_a_large_vocabulary_follows_the_softmax_too() -> None:
    vocabulary, draws = 5_000, 20_000
    logits = torch.full((1, vocabulary), -30.0)
    logits[0, ::313] = logits_of(1, 16)[0]
    tokens = torch.cat(
        [
            sample(logits.expand(2_000, -1), torch.arange(first, first + 2_000), Sampling(1.0, seed=6))
            for first in range(0, draws, 2_000)
        ]
    )
    assert (tokens % 313 == 0).all()
    statistic, freedom = chi_square(tokens // 313, logits[0, ::313].softmax(-1))
    assert statistic < CHI_SQUARE_999[freedom]


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    logits, positions, sampling = logits_of(9, 5_000), torch.arange(9), Sampling(0.9, seed=8)
    together = best(logits, positions, sampling, count=3)
    for row in range(9):
        alone = best(logits[row : row + 1], positions[row : row + 1], sampling, count=3)
        assert torch.equal(alone.tokens[0], together.tokens[row])


def test_rows_may_have_seeds_of_their_own() -> None:
    positions, seeds = torch.tensor([5, 5, 9]), torch.tensor([1, 2, 2**62])
    noise = Noise(positions, 300, seeds).every()
    for row in range(3):
        assert torch.equal(noise[row : row + 1], Noise(positions[row : row + 1], 300, int(seeds[row])).every())


@pytest.mark.parametrize("vocabulary", [1, 2, 63, 64, 65, 130])
def test_small_vocabularies_have_all_their_tokens(vocabulary: int) -> None:
    tokens = sample(torch.zeros(4_000, vocabulary), torch.arange(4_000), Sampling(1.0, seed=2))
    assert set(tokens.tolist()) == set(range(vocabulary))


def reference(seed: int, position: int, vocabulary: int) -> list[float]:
    """The same noise in plain Python: splitmix64's finaliser over a counter, from the top of each block down."""
    mask, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(value: int) -> int:
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        return value ^ (value >> 31)

    def uniform(counter: int, what: int) -> float:
        key = mix((mix((position * golden + seed) & mask) + what) & mask)
        return ((mix(mix((key + counter * golden) & mask)) >> 12) + 0.5) * 2.0**-52

    values: list[float] = []
    for block in range(-(-vocabulary // BLOCK)):
        size = min(BLOCK, vocabulary - block * BLOCK)
        largest = math.log(size) - math.log(-math.log(uniform(block, LARGEST)))
        holder = int(uniform(block, HOLDER) * size)
        for token in range(block * BLOCK, block * BLOCK + size):
            truncated = -math.log(math.exp(-largest) - math.log(uniform(token, OWN)))
            values.append(largest if token - block * BLOCK == holder else truncated)
    return values


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_noise_is_the_one_that_texts_were_written_with(seed: int) -> None:
    """A change here changes every seeded text of every user."""
    positions = [0, 1, 1000, 10**6]
    noise = Noise(torch.tensor(positions), 150, seed).every()
    wanted = torch.tensor([reference(seed, position, 150) for position in positions], dtype=torch.float64)
    torch.testing.assert_close(noise, wanted, atol=1e-9, rtol=1e-9)


GOLDEN = {(0, 0): 1723, (0, 7): 2940, (1, 0): 2159, (1, 7): 4845, (2**63 - 1, 5): 3259}
"""By seed and position: which of 5,000 tokens with equal scores is chosen."""


@pytest.mark.parametrize(("seed", "position"), GOLDEN)
def test_torch_and_numpy_choose_the_token_that_is_written_down(seed: int, position: int) -> None:
    chosen = int(sample(torch.zeros(1, 5_000), torch.tensor([position]), Sampling(1.0, seed=seed)))
    (again,), *_ = noise_numpy.best(np.zeros(5_000, dtype=np.float32), position, seed)
    assert (chosen, again) == (GOLDEN[seed, position],) * 2


@pytest.mark.parametrize("vocabulary", [30, 5_000, 5_056])
@pytest.mark.parametrize("looked_at", [1, 8])
def test_numpy_ranks_as_torch_does(vocabulary: int, looked_at: int) -> None:
    logits, positions = logits_of(20, vocabulary, 3), torch.arange(20) * 17
    found = best(logits, positions, Sampling(0.8, seed=11), count=5)
    scores = filter_logits(logits, Sampling(0.8, seed=11)).numpy()
    for row in range(20):
        tokens, values, _ = noise_numpy.best(scores[row], int(positions[row]), 11, 5, looked_at)
        assert tokens == found.tokens[row].tolist()
        assert values == pytest.approx(
            found.values[row].tolist(), abs=1e-6
        )  # torch divides small vocabularies in float32


@pytest.mark.parametrize("sampling", [Sampling(0.7, 0, 0.9, 3), Sampling(0.7, 40, 1.0, 3), Sampling(1.3, 40, 0.8, 3)])
def test_numpy_filters_as_torch_does(sampling: Sampling) -> None:
    logits, positions = logits_of(20, 5_000, 3), torch.arange(20) * 17
    found = best(logits, positions, sampling, count=5)
    for row in range(20):
        scores = noise_numpy.filtered(logits[row].numpy(), sampling)
        tokens, values, total = noise_numpy.best(scores, int(positions[row]), 3, 5)
        assert tokens == found.tokens[row].tolist()
        assert np.exp(np.array(values) - total) == pytest.approx(
            (found.values[row] - found.total[row]).exp().numpy(),
            abs=0.05,  # the total is over the blocks that were looked at: with torch, as many for all rows
        )


@pytest.mark.parametrize("vocabulary", [30, 5_000, 5_056])
def test_numpy_finds_the_highest_scores(vocabulary: int) -> None:
    scores = logits_of(20, vocabulary, 4).numpy()
    for row in scores:
        for count in (1, 4, 20):
            assert noise_numpy.highest(row, count) == np.argsort(-row, kind="stable")[:count].tolist()
