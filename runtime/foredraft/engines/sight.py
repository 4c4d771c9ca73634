"""How a vision-language model sees: an image becomes tokens of a text, and rows in the place of their embeddings.

The model's own parts do it: its image processor and its processor's rule for what an image's place in the text
becomes, its vision tower (``get_image_features``), and its rule for where an image's rows stand
(``get_rope_index``, where positions have several axes). An image is run through the tower once, by itself, so what
it becomes does not depend on who shares the device. Deeper features that some models add to their first
layers (DeepStack, Meng et al. 2024) go along.
"""

import inspect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from foredraft.errors import ImageError, ModelError
from foredraft.images import open_image

_numbers = itertools.count()

NAME_BITS: Final = 20
"""Of a row's name: which row of its image it is."""


@dataclass(eq=False, slots=True)
class Picture:
    """An image as a model sees it.

    ``tokens``: what its place in a text becomes. ``rows`` ``[count, width]``: of those of them that are the image's,
    in the place of embeddings; ``deep``: likewise, added after each of the first layers. ``inputs``: what else its
    processor said, such as its grid. ``number`` tells it apart from all others.
    """

    tokens: tuple[int, ...]
    rows: Tensor
    deep: tuple[Tensor, ...]
    inputs: Mapping[str, Tensor]
    number: int = field(default_factory=lambda: next(_numbers))

    @property
    def held_bytes(self) -> int:
        """What it takes in memory."""
        return sum(part.nbytes for part in (self.rows, *self.deep))

    def name(self, row: int) -> int:
        """Stands for its ``row``-th token where texts are compared: negative, and no other image's."""
        return -1 - (self.number << NAME_BITS | row)


class Sight:
    """The eyes of one model. ``image_token``: the id that holds an image's place in a text."""

    def __init__(self, module: Any, folder: Path) -> None:
        """Raises ModelError where its processor cannot be loaded."""
        self._module = module
        self.image_token = int(module.config.image_token_id)
        self._processor = _processor_of(folder)
        self._index = getattr(module.model, "get_rope_index", None)

    def read(self, data: bytes) -> Mapping[str, Tensor]:
        """What the vision tower takes of an encoded image. On any thread. Raises ImageError."""
        image = open_image(data)
        try:
            inputs = self._processor.image_processor(images=[image], return_tensors="pt")
        except (ValueError, TypeError, RuntimeError) as error:  # as for one that is thinner than a patch
            raise ImageError(f"the model takes no image of {image.width} x {image.height} pixels: {error}") from error
        return {name: value for name, value in inputs.items() if isinstance(value, Tensor)}

    def look(self, inputs: Mapping[str, Tensor]) -> Picture:
        """Run an image through the vision tower. On the device's thread."""
        device = self._module.device
        given = {name: value.to(device) for name, value in inputs.items()}
        seen = self._module.get_image_features(**given)
        rows = _one(seen.pooler_output)
        deep = tuple(_one(level) for level in getattr(seen, "deepstack_features", None) or ())
        tokens = self._tokens(inputs)
        if sum(token == self.image_token for token in tokens) != len(rows):
            raise ModelError(f"an image has {len(rows)} rows and {len(tokens)} places in the text")
        kept = {name: value for name, value in inputs.items() if not name.startswith("pixel")}
        return Picture(tokens, rows, deep, kept)

    def _tokens(self, inputs: Mapping[str, Tensor]) -> tuple[int, ...]:
        text = self._processor.replace_image_token(inputs, 0)
        return tuple(self._processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def positions(self, tokens: Sequence[int], rows: Sequence[int], pictures: Sequence[Picture]) -> Tensor:
        """Where the tokens of a text stand for the model, ``[axes, tokens]``; ``rows``: the places of images' rows."""
        if self._index is None:
            return torch.arange(len(tokens)).unsqueeze(0)
        kinds = torch.zeros(1, len(tokens), dtype=torch.int32)
        kinds[0, list(rows)] = 1
        given: dict[str, Any] = {"input_ids": torch.tensor([tokens]), "mm_token_type_ids": kinds}
        for name in pictures[0].inputs:
            given[name] = torch.cat([picture.inputs[name] for picture in pictures])
        taken = inspect.signature(self._index).parameters
        positions: Tensor = self._index(**{name: value for name, value in given.items() if name in taken})[0]
        return positions[:, 0]


def _one(features: Any) -> Tensor:
    """The rows of the one image, ``[rows, width]``; models give them in a list, or in a batch."""
    rows: Tensor = features if isinstance(features, Tensor) else features[0]
    return rows.reshape(-1, rows.shape[-1]).contiguous()


def _processor_of(folder: Path) -> Any:
    """The model's processor. Its half for videos may want packages that images do without; it is left out then."""
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(folder)
    except (ImportError, OSError, ValueError, TypeError):
        pass
    try:
        return _without_video(folder)
    except (ImportError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"the image processor in {str(folder)!r} cannot be loaded: {error}") from error


def _without_video(folder: Path) -> Any:
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    config = AutoConfig.from_pretrained(folder)
    kind = PROCESSOR_MAPPING[type(config)]
    processor = object.__new__(kind)
    processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    processor.tokenizer = AutoTokenizer.from_pretrained(folder)
    processor.image_token = processor.tokenizer.convert_ids_to_tokens(config.image_token_id)
    return processor
