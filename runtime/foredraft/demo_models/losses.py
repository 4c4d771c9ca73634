"""What target and draft descend.

The target also learns to be read *part of the way through*: every step, one intermediate depth is passed through the
final norm and the output layer and scored too. An exit head then has something to read, and its guess is close to
the final answer. The draft learns from the target's whole distribution, because with shared noise it is right as
often as its distribution is close, not as often as its best guess is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from foredraft.demo_models.train import Batch, LossOf

HALF_WEIGHT = 0.4
"""Weight of the loss at half depth, which is scored on every second step."""

QUARTER_WEIGHT = 0.2
"""Weight of the losses at a quarter and at three quarters, each scored on every fourth step."""

GRAMMAR_WEIGHT = 15.0
"""How much more it weighs that a permitted token comes than which of the permitted ones it is."""

LABEL_SHARE = 0.1
"""The share of the draft's loss that comes from the text itself; the rest is the distance to the target."""


def scored_depth(layers: int, step: int) -> tuple[int, float]:
    """The intermediate depth (layers run) that this step scores, and the weight of its loss."""
    if step % 2 == 0:
        return layers // 2, HALF_WEIGHT
    return (layers // 4 if step % 4 == 1 else layers * 3 // 4), QUARTER_WEIGHT


def rule_breaking(logits: Tensor, ruled_out: Tensor) -> Tensor:
    """The mean of -log P(a permitted token); logits and `ruled_out` (positions, vocabulary)."""
    permitted = logits.masked_fill(ruled_out, -torch.inf)
    return (logits.logsumexp(-1) - permitted.logsumexp(-1)).mean()


def target_loss(model: LlamaForCausalLM, ruled_out: Tensor) -> LossOf:
    """Next-token loss at the end, and at one intermediate depth per step; and what breaking the corpus's rules costs.

    `ruled_out`: which tokens may not follow in each state of the grammar, bool (states, vocabulary).
    """
    kept: dict[int, Tensor] = {}

    def keep(depth: int) -> Any:
        def hook(_module: object, _inputs: object, output: Any) -> None:
            kept[depth] = output if isinstance(output, Tensor) else output[0]

        return hook

    layers = model.config.num_hidden_layers
    for depth in {scored_depth(layers, step)[0] for step in range(4)}:
        if depth > 0:
            model.model.layers[depth - 1].register_forward_hook(keep(depth))

    def loss_of(batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        inputs, labels = batch.tokens[:, :-1], batch.tokens[:, 1:].reshape(-1)
        logits = model(input_ids=inputs, use_cache=False).logits.flatten(0, 1)
        final = functional.cross_entropy(logits, labels)
        loss = final + GRAMMAR_WEIGHT * rule_breaking(logits, ruled_out[batch.states[:, :-1].reshape(-1)])
        depth, weight = scored_depth(layers, step)
        if depth in kept:
            early = model.lm_head(model.model.norm(kept[depth]))
            loss = loss + weight * functional.cross_entropy(early.flatten(0, 1), labels)
        kept.clear()
        return loss, final.detach()

    return loss_of


def draft_loss(draft: LlamaForCausalLM, target: LlamaForCausalLM) -> LossOf:
    """The distance (KL) from the target's distribution to the draft's, and a little of the text's own loss."""

    def loss_of(batch: Batch, _step: int) -> tuple[Tensor, Tensor]:
        inputs, labels = batch.tokens[:, :-1], batch.tokens[:, 1:].reshape(-1)
        with torch.no_grad():
            wanted = target(input_ids=inputs, use_cache=False).logits.flatten(0, 1).log_softmax(-1)
        guess = draft(input_ids=inputs, use_cache=False).logits.flatten(0, 1).log_softmax(-1)
        distance = functional.kl_div(guess, wanted, reduction="batchmean", log_target=True)
        plain = functional.nll_loss(guess, labels)
        return (1 - LABEL_SHARE) * distance + LABEL_SHARE * plain, distance.detach()

    return loss_of
