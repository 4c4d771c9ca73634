"""The target's hidden states at the answers of some lessons, kept: what the exit heads learn from.

The trainer of exits asks for states by ids; here an id is the number of an answer's token among all that are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foredraft.demo_models.robot.batches import BATCH_VIEWS, Collator, look, read
from foredraft.demo_models.robot.losses import answering
from foredraft.demo_models.robot.views import lessons
from foredraft.engines.model_files import model_digest
from foredraft.exits.data import MAX_HELD_OUT_TOKENS, Windows
from foredraft.exits.judge import Readable
from foredraft.progress import Show

EXIT_WORLDS_FROM = 10_000
"""The first seed of worlds for exits; the target was not trained on them."""

LESSONS = 1600
HELD_OUT_SHARE = 0.25
WINDOW = 16
"""Ids to a window: the trainer deals in windows."""


def remember(
    target: Any, folder: Path, collator: Collator, layers: Sequence[int], amount: int, show: Show
) -> tuple[Readable, Windows]:
    """Run the target over `amount` lessons: a model for the trainer of exits, and windows, a share of them held out."""
    taught = list(islice(lessons(count(EXIT_WORLDS_FROM)), amount))
    kept: dict[int, list[Tensor]] = {layer: [] for layer in (*layers, len(target.model.language_model.layers))}
    with torch.no_grad():
        for start in range(0, amount, BATCH_VIEWS):
            batch = collator.collate(taught[start : start + BATCH_VIEWS])
            states = read(target, batch, look(target, batch))
            for layer, parts in kept.items():
                parts.append(answering(states[layer], batch))
            show(start, amount, "hidden states")
    table = {layer: torch.cat(parts) for layer, parts in kept.items()}
    return _readable(target, folder, table), _windows(len(next(iter(table.values()))))


def _windows(tokens: int) -> Windows:
    """All ids in windows, the last ones held out: the lessons come in the order of their worlds, nearly."""
    ids = torch.arange(tokens // WINDOW * WINDOW).reshape(-1, WINDOW)
    held_out = min(int(len(ids) * HELD_OUT_SHARE), MAX_HELD_OUT_TOKENS // WINDOW)
    return Windows(ids[:-held_out], ids[-held_out:])


def _readable(target: Any, folder: Path, table: dict[int, Tensor]) -> Readable:
    depth = max(table)

    def states(ids: Tensor, layers: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
        rows = ids.flatten()
        return {layer: table[layer][rows] for layer in layers}, table[depth][rows]

    return Readable(
        name=folder.name,
        digest=model_digest(folder),
        depth=depth,
        device=torch.device("cpu"),
        dtype=torch.float32,
        vocab_size=target.config.text_config.vocab_size,
        norm=target.model.language_model.norm,
        lm_head=target.lm_head,
        states=states,
    )
