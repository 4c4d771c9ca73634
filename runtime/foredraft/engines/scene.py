"""The images of one text: which of its tokens are an image's, and where they stand for the model."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foredraft.engines.sight import NAME_BITS, Picture, Sight
from foredraft.errors import RefusedError
from foredraft.protocol.messages import INVALID


class Glimpse(NamedTuple):
    """Rows of images in a forward: ``at`` which of its rows; ``rows``, ``deep``: as in ``Picture``."""

    at: list[int]
    rows: Tensor
    deep: tuple[Tensor, ...]


class Scene:
    """A text's images, each in its place."""

    def __init__(self, sight: Sight, tokens: Sequence[int], pictures: Sequence[Picture]) -> None:
        """Raises RefusedError("invalid") where the text has no places for these images, in their order."""
        self._names: dict[int, int] = {}  # of the tokens at these places
        self._at: list[int] = []  # the places of the images' rows
        after = 0
        for number, picture in enumerate(pictures, 1):
            first = _find(tokens, picture.tokens, after)
            if first < 0:
                raise RefusedError(INVALID, f"the text has no place for its image {number}")
            after = first + len(picture.tokens)
            self._names.update((first + row, picture.name(row)) for row in range(len(picture.tokens)))
            self._at += [first + row for row, token in enumerate(picture.tokens) if token == sight.image_token]
        self._pictures = {picture.number: picture for picture in pictures}
        self._rows = _joined([picture.rows for picture in pictures])
        self._deep = tuple(_joined(level) for level in zip(*(picture.deep for picture in pictures), strict=True))
        self._positions = sight.positions(tokens, self._at, pictures)
        self._shift = int(self._positions.max()) + 1 - len(tokens)
        self._end = after

    def names(self, start: int, tokens: Sequence[int]) -> list[int]:
        """The tokens from ``start`` on, an image's as names: two texts have them in common if they show the same."""
        return [self._names.get(at, token) for at, token in enumerate(tokens, start)]

    def tokens(self, names: Sequence[int]) -> list[int]:
        """The tokens that these names stand for."""
        return [name if name >= 0 else self._token(-1 - name) for name in names]

    def _token(self, name: int) -> int:
        return self._pictures[name >> NAME_BITS].tokens[name & (1 << NAME_BITS) - 1]

    def is_past(self, start: int) -> bool:
        """Whether all images end before this place: what follows is text, which stands at the same on all axes."""
        return start >= self._end

    def stand(self, at: Sequence[int]) -> Tensor:
        """Where the tokens at these places of the text stand for the model: ``[axes, tokens]``."""
        places, known = torch.tensor(at), self._positions.shape[1]
        return torch.where(places < known, self._positions[:, places.clamp(max=known - 1)], places + self._shift)

    def glimpse(self, start: int, end: int, first: int) -> Glimpse | None:
        """What there is of images from ``start`` to ``end``; the row of the forward that ``start`` has is ``first``."""
        low, high = bisect_left(self._at, start), bisect_left(self._at, end)
        if low == high:
            return None
        at = [first + place - start for place in self._at[low:high]]
        return Glimpse(at, self._rows[low:high], tuple(level[low:high] for level in self._deep))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _find(tokens: Sequence[int], wanted: Sequence[int], start: int) -> int:
    """Where ``wanted`` comes in ``tokens``, from ``start`` on; -1 where it does not."""
    length = len(wanted)
    for first in range(start, len(tokens) - length + 1):
        if tokens[first] == wanted[0] and tuple(tokens[first : first + length]) == tuple(wanted):
            return first
    return -1
