"""Lessons as tensors, and the forward of a model over them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from foredraft.demo_models.robot.language import END, GRID, IMAGE_TOKENS, MERGE, PATCH, SPECIAL, VISION_START, prompt
from foredraft.demo_models.robot.views import Lesson, lessons
from foredraft.robot.camera import HEIGHT, WIDTH, View

TRAIN_FROM = 1_000_000
"""The first seed of a world that is trained on; those below are for judging."""

TRAIN_WORLDS = 1_000_000_000
BATCH_VIEWS = 16
HIDDEN = -1
"""Stands for the number of a thing that is not counted, as another stands before it."""


class Batch(NamedTuple):
    """`views` pictures, each with as many rows of tokens: [rows, length]."""

    views: int
    pixels: Tensor
    """Patches, [views * patches, numbers of a patch], as the image processor makes them."""
    tokens: Tensor
    answers: Tensor
    """Which tokens belong to answers: bool, as `tokens`."""
    spots: Tensor
    """[things in view, 3]: the view, the image token that holds the thing's middle, and the number of its name."""
    places: Tensor
    """[things in view, 2]: the middle's column, from -1 to 1, and the logarithm of the metres ahead."""
    counted: Tensor
    """[things in view, 2]: the number among those of the kind from the left and from the right, below 0 if hidden."""


def image_processor() -> Any:
    """Qwen2-VL's, that makes patches of a view; what is larger is made smaller."""
    size = {"shortest_edge": HEIGHT * WIDTH // 2, "longest_edge": HEIGHT * WIDTH}
    return Qwen2VLImageProcessorPil(size=size)


class Collator:
    """Makes batches of lessons."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._processor = image_processor()

    def pixels(self, views: Sequence[View]) -> Tensor:
        """The views as patches."""
        patches: Tensor = self._processor(list(views), return_tensors="pt", input_data_format="channels_last")[
            "pixel_values"
        ]
        return patches

    def collate(self, taught: Sequence[Lesson]) -> Batch:
        """The lessons, one row for each question; rows end with padding where they are shorter."""
        pairs = [pair for one in taught for pair in one.asked]
        asked = [self._tokenizer.encode(prompt(question)).ids for question, _ in pairs]
        answered = [self._tokenizer.encode(answer + END).ids for _, answer in pairs]
        length = max(len(a) + len(b) for a, b in zip(asked, answered, strict=True))
        tokens = torch.zeros(len(pairs), length, dtype=torch.long)
        answers = torch.zeros(len(pairs), length, dtype=torch.bool)
        for row, (question, answer) in enumerate(zip(asked, answered, strict=True)):
            end = len(question) + len(answer)
            tokens[row, :end] = torch.tensor(question + answer)
            answers[row, len(question) : end] = True
        return Batch(len(taught), self.pixels([one.view for one in taught]), tokens, answers, *_spots(taught))


def _spots(taught: Sequence[Lesson]) -> tuple[Tensor, Tensor, Tensor]:
    side, high, wide = PATCH * MERGE, GRID[1] // MERGE, GRID[2] // MERGE
    spots, places, numbers = [], [], []
    for view, one in enumerate(taught):
        for name, column, row, metres, counted in one.spots:
            at = min(high - 1, max(0, int(row // side))) * wide + min(wide - 1, max(0, int(column // side)))
            spots.append((view, at, name))
            places.append((column / WIDTH * 2 - 1, math.log(metres)))
            numbers.append(counted or (HIDDEN, HIDDEN))
    return (
        torch.tensor(spots, dtype=torch.long).reshape(-1, 3),
        torch.tensor(places).reshape(-1, 2),
        torch.tensor(numbers, dtype=torch.long).reshape(-1, 2),
    )


class Draw:
    """Batches of lessons without end, on worlds that are never seen again."""

    def __init__(self, collator: Collator) -> None:
        self._collator = collator
        self._lessons: Iterator[Lesson] | None = None

    def __call__(self, share: float) -> Batch:
        """The next batch. `share`: of the training that is done; a resumed one goes on to other worlds."""
        if self._lessons is None:
            self._lessons = lessons(count(TRAIN_FROM + int(share * TRAIN_WORLDS)))
        return self._collator.collate(list(islice(self._lessons, BATCH_VIEWS)))


def look(model: Any, batch: Batch) -> Tensor:
    """What the eyes make of the views, [views, image tokens, width]."""
    grid = torch.tensor([GRID] * batch.views)
    seen: Tensor = model.model.visual(batch.pixels, grid_thw=grid).pooler_output
    return seen.reshape(batch.views, IMAGE_TOKENS, -1)


def read(model: Any, batch: Batch, seen: Tensor) -> tuple[Tensor, ...]:
    """Hidden states [rows, length, width] before the first layer, after each but the last, and after the final norm.

    `seen`: from `look`; the eyes run once for each view, whatever is asked about it.
    """
    rows, length = batch.tokens.shape
    start = int((batch.tokens[0] == SPECIAL.index(VISION_START)).nonzero()[0]) + 1
    embedded = model.get_input_embeddings()(batch.tokens)
    seen = seen.repeat_interleave(rows // batch.views, 0)
    embedded = torch.cat([embedded[:, :start], seen, embedded[:, start + IMAGE_TOKENS :]], 1)
    at = positions(start, length)[:, None].expand(-1, rows, -1)
    out = model.model.language_model(
        inputs_embeds=embedded, position_ids=at, use_cache=False, output_hidden_states=True
    )
    states: tuple[Tensor, ...] = out.hidden_states
    return states


def positions(start: int, length: int) -> Tensor:
    """Moment, row and column of each token, [3, length], as Qwen2-VL counts them; the image begins at `start`."""
    high, wide = GRID[1] // MERGE, GRID[2] // MERGE
    rows = torch.arange(high).repeat_interleave(wide)
    image = torch.stack([torch.zeros_like(rows), rows, torch.arange(wide).repeat(high)]) + start
    before = torch.arange(start).expand(3, -1)
    after = torch.arange(length - start - IMAGE_TOKENS).expand(3, -1) + start + max(high, wide)
    return torch.cat([before, image, after], 1)
