"""What target and draft descend: only what is answered counts.

The target learns to be read at its exits too, as the bundled pair's does. The draft learns from the target's whole
distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from foredraft.demo_models.robot.batches import HIDDEN, Batch, look, read
from foredraft.robot.world import NAMES, ORDINALS, SIDES

LossOf = Callable[[Batch, int], tuple[Tensor, Tensor]]

EARLY_WEIGHT = 0.3
"""Weight of the loss at an exit; each step scores one of them."""

SIGHT_WEIGHT = 0.5
"""Weight of what the eyes have to tell by themselves."""

LABEL_SHARE = 0.3
"""The share of the draft's loss that comes from the expert; the rest is the distance to the target."""


def answering(states: Tensor, batch: Batch) -> Tensor:
    """The states that say the answers' tokens, [tokens, width]."""
    return states[:, :-1][batch.answers[:, 1:]]


def answered(batch: Batch) -> Tensor:
    """The answers' tokens, [tokens]."""
    return batch.tokens[batch.answers]


class Guide(nn.Module):
    """Helps the eyes to learn, and is thrown away: from each image token, which things are there, where, how far.

    And which of their kind they are from the left and from the right. The answers alone do not teach that in hours:
    neither the ordinal nor the side tells anything without the other.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.which = nn.Linear(width, len(NAMES))
        self.where = nn.Linear(width, 2 * len(NAMES))
        self.order = nn.Linear(width, len(SIDES) * len(ORDINALS) * len(NAMES))

    def loss(self, seen: Tensor, batch: Batch) -> Tensor:
        """How far `seen`, [views, image tokens, width], is from telling what is in view."""
        view, at, name = batch.spots.unbind(1)
        there = torch.zeros(*seen.shape[:2], len(NAMES))
        there[view, at, name] = 1.0
        which = functional.binary_cross_entropy_with_logits(self.which(seen).float(), there, reduction="sum")
        places = self.where(seen).float().reshape(*seen.shape[:2], len(NAMES), 2)[view, at, name]
        where = functional.smooth_l1_loss(places, batch.places, reduction="sum", beta=0.1)
        order = self.order(seen).float().reshape(*seen.shape[:2], len(NAMES), len(SIDES), len(ORDINALS))[view, at, name]
        numbers = batch.counted.clamp(max=len(ORDINALS) - 1)
        counted = functional.cross_entropy(order.flatten(0, 1), numbers.flatten(), reduction="sum", ignore_index=HIDDEN)
        loss: Tensor = (which + 4.0 * where + counted) / max(1, len(view))
        return loss


def _logits(model: Any, states: Tensor, batch: Batch) -> Tensor:
    """What the output layer says where the answers' tokens are said, [tokens, vocabulary], in fp32."""
    logits: Tensor = model.lm_head(answering(states, batch)).float()
    return logits


def eyes_loss(model: Any) -> LossOf:
    """What the eyes alone descend, before anyone reads from them; reported as it is, not in nats a token."""

    def loss_of(batch: Batch, _step: int) -> tuple[Tensor, Tensor]:
        loss: Tensor = model.guide.loss(look(model, batch), batch)
        return loss, loss.detach()

    return loss_of


def target_loss(model: Any, exit_layers: Sequence[int]) -> LossOf:
    """Next-token loss at the end, and at one exit in each step."""

    def loss_of(batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        seen, labels = look(model, batch), answered(batch)
        states = read(model, batch, seen)
        final = functional.cross_entropy(_logits(model, states[-1], batch), labels)
        early = model.model.language_model.norm(states[exit_layers[step % len(exit_layers)]])
        early_loss = functional.cross_entropy(_logits(model, early, batch), labels)
        return final + EARLY_WEIGHT * early_loss + SIGHT_WEIGHT * model.guide.loss(seen, batch), final.detach()

    return loss_of


def draft_loss(draft: Any, target: Any) -> LossOf:
    """The distance (KL) from the target's distribution to the draft's, and some of the expert's own loss."""

    def loss_of(batch: Batch, _step: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            wanted = _logits(target, read(target, batch, look(target, batch))[-1], batch).log_softmax(-1)
        seen = look(draft, batch)
        guess = _logits(draft, read(draft, batch, seen)[-1], batch).log_softmax(-1)
        distance = functional.kl_div(guess, wanted, reduction="batchmean", log_target=True)
        plain = functional.nll_loss(guess, answered(batch))
        sight = draft.guide.loss(seen, batch)
        return (1 - LABEL_SHARE) * distance + LABEL_SHARE * plain + SIGHT_WEIGHT * sight, distance.detach()

    return loss_of
