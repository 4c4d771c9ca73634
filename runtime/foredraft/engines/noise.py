"""Position-keyed Gumbel noise: sampling without probabilities on the wire.

Every position of the text has its own noise, a Gumbel value per token id from a counter-based generator keyed by
(seed, position). The sample at a position is ``argmax(filtered_logits / temperature + noise)``: a draw from the
filtered softmax (the Gumbel-max trick), and the same draw for whoever knows the seed. Draft and target share the
noise, so a draft token is right exactly when it equals the target's sample (Daliri, Musco and Suresh, "Coupling
without Communication and Drafter-Invariant Speculative Decoding", 2024).

The noise is drawn from the top down, in blocks of token ids: the largest value of a block of n tokens is
Gumbel(ln n), each of them has it with the same chance, and given it the others are Gumbel values truncated there
(Maddison, Tarlow and Minka, "A* Sampling", 2014). A block can hold a winner only if its best score plus its largest
value says so; in all others nothing is drawn. The result is exact, for a sixty-fourth of the draws.

The generator is splitmix64's finaliser (Steele, Lea and Flood, 2014) over a counter, in wrapping 64-bit integer
arithmetic, which is identical on every device. ``noise_numpy`` draws the same without torch.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from foredraft.protocol.sampling import Sampling

BLOCK: Final = 64
"""Token ids that share a largest value. Another number is other noise."""

LOOKED_AT: Final = 8
"""Blocks that are looked into at first; four times as many until no other can win."""

_SMALL: Final = 64 * BLOCK
"""Up to so many token ids all noise is drawn at once: that is fewer operations."""

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_UNIFORM_BITS = 52
LARGEST, HOLDER, OWN = 0, 1, 2
"""What is drawn: a block's largest value, which of its tokens has it, and the tokens' own values."""


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """Logical shift right; torch's is arithmetic for signed integers."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _mix(values: Tensor) -> Tensor:
    values = (values ^ _shift_right(values, 30)) * _MIX_1
    values = (values ^ _shift_right(values, 27)) * _MIX_2
    return values ^ _shift_right(values, 31)


def _uniform(start: Tensor, counters: Tensor, what: int) -> Tensor:
    """Numbers in (0, 1), float64, of ``start`` broadcast against ``counters`` (int64 both)."""
    key = _mix(_mix(start) + what)
    bits = _shift_right(_mix(_mix(key + counters * _GOLDEN)), 64 - _UNIFORM_BITS)
    return (bits.to(torch.float64) + 0.5) * 2.0**-_UNIFORM_BITS


@dataclass(frozen=True, slots=True)
class Best:
    """The best tokens of some rows, noise included: ``values`` and ``tokens`` ``[rows, count]``, best first.

    ``total``: ``[rows]``, the logarithm of the summed exponentials of all that could be among the best.
    """

    values: Tensor
    tokens: Tensor
    total: Tensor


class Noise:
    """The noise of all tokens at some positions; what is asked of it is drawn, and no more."""

    def __init__(self, positions: Tensor, vocab_size: int, seed: int | Tensor) -> None:
        """``positions``: ``[rows]``, of the tokens that are to be chosen. ``seed``: that of all rows, or ``[rows]``."""
        self._vocab_size = vocab_size
        self._start = (positions.to(torch.int64) * _GOLDEN + seed).unsqueeze(-1)
        blocks = -(-vocab_size // BLOCK)
        number = torch.arange(blocks, device=positions.device)
        sizes = torch.full((blocks,), float(BLOCK), dtype=torch.float64, device=positions.device)
        sizes[-1] = vocab_size - (blocks - 1) * BLOCK
        self._places = torch.arange(BLOCK, device=positions.device)
        self._largest = sizes.log() - (-_uniform(self._start, number, LARGEST).log()).log()
        self._holder = (_uniform(self._start, number, HOLDER) * sizes).long()
        self._all = self._every() if vocab_size <= _SMALL else None

    def every(self) -> Tensor:
        """The noise of every token: ``[rows, vocab]``, float64."""
        return self._every() if self._all is None else self._all

    def _every(self) -> Tensor:
        rows, blocks = self._largest.shape
        chosen = torch.arange(blocks, device=self._start.device).expand(rows, -1)
        return self._within(chosen).flatten(1)[:, : self._vocab_size]

    def _within(self, blocks: Tensor) -> Tensor:
        """The noise of all tokens of some blocks: ``[rows, count, BLOCK]`` for blocks ``[rows, count]``."""
        most = self._largest.gather(-1, blocks).unsqueeze(-1)
        tokens = blocks.unsqueeze(-1) * BLOCK + self._places
        own = _uniform(self._start.unsqueeze(-1), tokens, OWN)
        truncated = -((-most).exp() - own.log()).log()
        return torch.where(self._places == self._holder.gather(-1, blocks).unsqueeze(-1), most, truncated)

    def best(self, scores: Tensor, count: int = 1, *, temperature: float = 1.0, looked_at: int = LOOKED_AT) -> Best:
        """The ``count`` best tokens of each row of ``scores / temperature``, ``[rows, vocab]``, noise included. Exact.

        Dividing all scores of a large vocabulary takes three times as long as the rest: only those looked at are.
        """
        if self._all is not None:
            return _best_of(scores / temperature + self._all, count)
        bounds = _block_maxima(scores).double() / temperature + self._largest
        blocks = bounds.shape[-1]
        while True:
            looked_at = min(looked_at, blocks)
            ahead = bounds.topk(min(looked_at + 1, blocks), dim=-1)
            inside = ahead.indices[:, :looked_at]
            tokens = (inside.unsqueeze(-1) * BLOCK + self._places).flatten(1)
            own = scores.gather(-1, tokens.clamp(max=self._vocab_size - 1)).double() / temperature
            own = own.masked_fill(tokens >= self._vocab_size, -torch.inf)
            found = _best_of(own + self._within(inside).flatten(1), count)
            if looked_at == blocks or bool((found.values[:, -1] >= ahead.values[:, looked_at]).all()):
                return Best(found.values, tokens.gather(-1, found.tokens), found.total)
            looked_at *= 4


def _best_of(perturbed: Tensor, count: int) -> Best:
    top = perturbed.topk(min(count, perturbed.shape[-1]), dim=-1)
    return Best(top.values, top.indices, perturbed.logsumexp(dim=-1))


def _block_maxima(scores: Tensor) -> Tensor:
    """The best score of each block, without a copy of the scores: ``[rows, blocks]``."""
    whole = scores.shape[-1] // BLOCK
    maxima: Tensor = torch.unflatten(scores[:, : whole * BLOCK], -1, (whole, BLOCK)).amax(-1)
    if scores.shape[-1] == whole * BLOCK:
        return maxima
    return torch.cat([maxima, scores[:, whole * BLOCK :].amax(-1, keepdim=True)], dim=-1)


def filter_logits(logits: Tensor, sampling: Sampling) -> Tensor:
    """``logits / temperature`` with what top-k and top-p drop set to -inf.

    ``logits``: ``[rows, vocab]``. Order as in transformers: temperature, top-k, top-p. Top-p
    keeps the smallest head whose mass reaches ``top_p``, so at least the most likely token.
    """
    scores = logits.to(torch.float64) / sampling.temperature
    if 0 < sampling.top_k < scores.shape[-1]:
        kth = scores.topk(sampling.top_k, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < kth, -torch.inf)
    if sampling.top_p < 1.0:
        ordered, order = scores.sort(dim=-1, descending=True, stable=True)
        mass = ordered.softmax(dim=-1)
        before = mass.cumsum(dim=-1) - mass
        dropped = before >= sampling.top_p
        scores = scores.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -torch.inf)
    return scores


def position_noise(positions: Tensor, vocab_size: int, sampling: Sampling) -> Noise | None:
    """The noise at ``positions``, ``[rows]``; None at temperature 0, which needs none."""
    return None if sampling.temperature == 0.0 else Noise(positions, vocab_size, sampling.seed)


def perturb(logits: Tensor, positions: Tensor, sampling: Sampling) -> Tensor:
    """Scores whose argmax is the sample, of every token: ``[rows, vocab]``; at temperature 0 the logits themselves.

    For whoever wants to see all of them; ``best`` draws a small part of the noise.
    """
    noise = position_noise(positions, logits.shape[-1], sampling)
    return logits if noise is None else filter_logits(logits, sampling) + noise.every()


def best(logits: Tensor, positions: Tensor, sampling: Sampling, noise: Noise | None = None, count: int = 1) -> Best:
    """The ``count`` tokens that each row ranks first at its position, noise included.

    ``logits``: ``[rows, vocab]``. ``positions``: ``[rows]``, the position in the text of the token that each row
    predicts. ``noise``: what ``position_noise`` gives for them, where several readings of the same rows share it.
    """
    noise = noise or position_noise(positions, logits.shape[-1], sampling)
    if noise is None:
        return _best_of(logits, count)
    if sampling.top_p == 1.0 and not 0 < sampling.top_k < logits.shape[-1]:
        return noise.best(logits, count, temperature=sampling.temperature)
    return noise.best(filter_logits(logits, sampling), count)


def sample(logits: Tensor, positions: Tensor, sampling: Sampling, noise: Noise | None = None) -> Tensor:
    """The token that each row says comes at its position: ``[rows]``, int64."""
    if sampling.temperature == 0.0:
        return logits.argmax(dim=-1)
    return best(logits, positions, sampling, noise).tokens[:, 0]
