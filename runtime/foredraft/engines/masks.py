"""Masks of tokens on the device: rows that may only say what a grammar allows."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def allowed_tokens(masks: Sequence[bytes], vocab_size: int, device: torch.device) -> Tensor:
    """What each mask allows: ``[masks, vocab]``, bool. Bit ``n`` of a mask is token ``n``'s; what it lacks is not."""
    size = -(-vocab_size // 8)
    packed = np.frombuffer(b"".join(mask[:size].ljust(size, b"\0") for mask in masks), np.uint8).reshape(-1, size)
    bits = np.unpackbits(packed, axis=1, count=vocab_size, bitorder="little")
    return torch.from_numpy(bits).to(device).bool()


def held_to(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """The logits ``[rows, vocab]`` with those of forbidden tokens as low as can be; as they are where None are."""
    return logits if allowed is None else logits.masked_fill(~allowed, torch.finfo(logits.dtype).min)
