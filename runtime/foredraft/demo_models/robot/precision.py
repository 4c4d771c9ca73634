"""Training in 16 bit where the processor multiplies faster so. What is stored and what descends stays in fp32."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from foredraft.demo_models.robot.batches import Batch
from foredraft.demo_models.robot.losses import LossOf

_SIDE = 384
"""Of the matrices that are tried: about those of the models."""


def quickest(loss_of: LossOf) -> LossOf:
    """The loss, computed in bfloat16 where that is clearly faster on this machine."""
    return _in_bfloat16(loss_of) if _product_s(torch.bfloat16) < 0.7 * _product_s(torch.float32) else loss_of


def _in_bfloat16(loss_of: LossOf) -> LossOf:
    def cast(batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            return loss_of(batch, step)

    return cast


def _product_s(dtype: torch.dtype) -> float:
    """Seconds of a product of two matrices: the shortest of some."""
    matrix = torch.ones(_SIDE, _SIDE, dtype=dtype)
    taken_s = []
    for _ in range(20):
        began_s = time.perf_counter()
        matrix @ matrix
        taken_s.append(time.perf_counter() - began_s)
    return min(taken_s)
