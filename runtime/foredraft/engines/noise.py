"""Position-keyed Gumbel noise: sampling without probabilities on the wire.

Every position of the text has its own noise, a Gumbel value per token id drawn from a
counter-based generator keyed by (seed, position, token id). The sample at a position is
``argmax(filtered_logits / temperature + gumbel)``: a draw from the filtered softmax (the
Gumbel-max trick), and the same draw for whoever knows the seed. Draft and target share the
noise, so a draft token is right exactly when it equals the target's sample (Daliri, Musco
and Suresh, "Coupling without Communication and Drafter-Invariant Speculative Decoding", 2024).

The generator is splitmix64's finaliser (Steele, Lea and Flood, 2014) over a counter, in
wrapping 64-bit integer arithmetic, which is identical on every device.
"""

import torch
from torch import Tensor

from foredraft.protocol.sampling import Sampling

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_UNIFORM_BITS = 52
_MASK = (1 << 64) - 1


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """Logical shift right; torch's is arithmetic for signed integers."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _mix(values: Tensor) -> Tensor:
    values = (values ^ _shift_right(values, 30)) * _MIX_1
    values = (values ^ _shift_right(values, 27)) * _MIX_2
    return values ^ _shift_right(values, 31)


def gumbel(seed: int, positions: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise, float64, of ``positions`` broadcast against ``tokens`` (int64)."""
    key = _mix(positions.to(torch.int64) * _GOLDEN + seed)
    bits = _shift_right(_mix(_mix(key + tokens * _GOLDEN)), 64 - _UNIFORM_BITS)
    uniform = (bits.to(torch.float64) + 0.5) * 2.0**-_UNIFORM_BITS
    return -torch.log(-torch.log(uniform))


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


def perturb(logits: Tensor, positions: Tensor, sampling: Sampling, noise: Tensor | None = None) -> Tensor:
    """Scores whose argmax is the sample: ``[rows, vocab]``; at temperature 0 the logits themselves.

    ``positions``: ``[rows]``, the position in the text of the token that each row predicts. ``noise``: what
    ``position_noise`` gives for them, where several readings of the same rows share it (it costs more than an exit).
    """
    if noise is None:
        noise = position_noise(positions, logits.shape[-1], sampling)
    return logits if noise is None else filter_logits(logits, sampling) + noise


def position_noise(positions: Tensor, vocab_size: int, sampling: Sampling) -> Tensor | None:
    """The noise of every token at ``positions``, ``[rows, vocab]``; None at temperature 0, which needs none."""
    if sampling.temperature == 0.0:
        return None
    tokens = torch.arange(vocab_size, device=positions.device)
    return gumbel(sampling.seed, positions.unsqueeze(-1), tokens)


def sample(logits: Tensor, positions: Tensor, sampling: Sampling, noise: Tensor | None = None) -> Tensor:
    """The token that each row says comes at its position: ``[rows]``, int64."""
    return perturb(logits, positions, sampling, noise).argmax(dim=-1)
