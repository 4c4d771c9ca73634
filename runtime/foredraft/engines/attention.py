"""Attention for texts that share a forward: each row sees its own text, or its own path in a draft tree.

transformers' models call whatever attention is registered under the name that is set; ours is ``foredraft``, and
the models' own modules stay as they are. The rows of all texts lie one after another in a batch of one. Who sees
whom is not in the arguments, so the forward that is running on this thread tells (``running``). Without one,
it is plain causal attention, so that the model still does all that transformers' models do.

Tree attention as in SpecInfer (Miao et al., 2024).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

NAME = "foredraft"
RULES = ("scaling", "sliding_window", "softcap", "s_aux")
"""What layers tell their attention that matters here; the last are attention sinks."""


class Forward(Protocol):
    """A forward on its way through a model's layers."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: dict[str, Any]) -> Tensor:
        """What the rows see: ``[1, rows, query heads, dim]``.

        ``query`` ``[1, query heads, rows, dim]``; ``key``, ``value`` ``[1, heads, rows, dim]``: the new rows of all
        texts. ``rules``: what the layer gives its attention (scaling, sliding_window, softcap, s_aux).
        """

    def after(self, layers: int, hidden: Tensor) -> None:
        """So many layers have run: hidden states ``[1, rows, width]``. May raise, which ends the forward."""


class _Running(threading.local):
    forward: Forward | None = None
    fuses = False


_running = _Running()


def running() -> Forward | None:
    """The forward on this thread."""
    return _running.forward


def fuses() -> bool:
    """Whether that forward is captured, so that what telling the GPU takes is of no account."""
    return _running.fuses


@contextmanager
def run(forward: Forward, *, fuse: bool = False) -> Iterator[None]:
    """Within, this thread's models run ``forward``; ``fuse``: with small operations compiled into one."""
    before = _running.forward, _running.fuses
    _running.forward, _running.fuses = forward, fuse
    try:
        yield
    finally:
        _running.forward, _running.fuses = before


def register() -> None:
    """Make the attention known to transformers, which then builds no masks of its own. Twice is fine."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attend)


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, **rules: Any
) -> tuple[Tensor, None]:
    forward = _running.forward
    if forward is not None:
        return forward.attend(module.layer_idx, query, key, value, rules), None
    return causal(query, key, value, rules).transpose(1, 2), None


def causal(query: Tensor, key: Tensor, value: Tensor, rules: dict[str, Any]) -> Tensor:
    """Attention of whole texts ``[batch, heads, rows, dim]``, or of rows at the end of cached ones."""
    rows, seen = query.shape[-2], key.shape[-2]
    at = torch.arange(seen, device=query.device)
    blocked = at > at[seen - rows :].unsqueeze(1)
    if window := rules.get("sliding_window"):
        blocked |= at <= at[seen - rows :].unsqueeze(1) - window
    mask = torch.zeros(rows, seen, dtype=query.dtype, device=query.device).masked_fill_(blocked, -torch.inf)
    return attention(query, key, value, mask, rules)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rules: dict[str, Any]) -> Tensor:
    """``[batch, query heads, rows, dim]`` over keys and values ``[batch, heads, seen, dim]``.

    ``mask`` ``[rows, seen]`` is added to the scores; None where every row sees everything.
    """
    scale, softcap, sinks = rules.get("scaling"), rules.get("softcap"), rules.get("s_aux")
    if softcap is None and sinks is None:
        grouped = query.shape[1] != key.shape[1]
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scale, enable_gqa=grouped
        )
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask
    if sinks is not None:  # a score that takes weight and gives nothing
        sink = sinks.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], -1)
        weights = torch.cat([scores, sink], -1).softmax(-1, dtype=torch.float32)[..., :-1]
    else:
        weights = scores.softmax(-1, dtype=torch.float32)
    return weights.to(value.dtype) @ value
