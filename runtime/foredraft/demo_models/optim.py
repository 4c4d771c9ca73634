"""The optimiser of the recipe: orthogonalised momentum for matrices, Adam for the rest.

With a few million tokens to learn from, Muon (Jordan et al., 2024) reaches a given loss in well under the steps that
Adam needs, and at these widths its extra matrix products cost about a tenth of a step. `torch.optim.Muon` works in
bfloat16, which most CPUs emulate slowly, and one matrix at a time; this one stacks equal shapes and stays in fp32.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration that pushes singular values towards 1."""


def orthogonalise(stack: Tensor, rounds: int = 5) -> Tensor:
    """Replace the singular values of every matrix in `stack` (count, rows, columns) by roughly 1."""
    a, b, c = NEWTON_SCHULZ
    tall = stack.size(-2) > stack.size(-1)
    x: Tensor = stack.mT if tall else stack
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


_WITHIN_LAYERS = (".layers.", ".blocks.")
"""Of a decoder and of a vision tower, in the names that transformers gives."""


class Optimiser:
    """Muon for the matrices inside the layers, Adam for embeddings and norms; `step` takes the schedule's factor."""

    def __init__(self, model: nn.Module, matrix_rate: float, other_rate: float, momentum: float = 0.95) -> None:
        matrices: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        others: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and any(part in name for part in _WITHIN_LAYERS):
                matrices[parameter.shape].append(parameter)
            else:
                others.append(parameter)
        self._groups = list(matrices.values())
        self._velocity = [torch.zeros(len(group), *group[0].shape) for group in self._groups]
        self._matrix_rate, self._other_rate, self._momentum = matrix_rate, other_rate, momentum
        self._adam = torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.98), weight_decay=0.0, foreach=True)

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Move every parameter by its gradient, with the rates scaled by `factor` (0 to 1), and clear gradients."""
        for group in self._adam.param_groups:
            group["lr"] = self._other_rate * factor
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        rate = self._matrix_rate * factor
        for parameters, velocity in zip(self._groups, self._velocity, strict=True):
            gradient = torch.stack([p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters])
            velocity.lerp_(gradient, 1 - self._momentum)
            update = orthogonalise(gradient.lerp(velocity, self._momentum))
            scale = max(1.0, velocity.size(-2) / velocity.size(-1)) ** 0.5
            for parameter, change in zip(parameters, update, strict=True):
                parameter.mul_(1 - rate * 0.05).add_(change, alpha=-rate * scale)
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return {"velocity": self._velocity, "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of the same model."""
        self._velocity = state["velocity"]
        self._adam.load_state_dict(state["adam"])
