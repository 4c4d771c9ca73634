"""The rows of several texts in one forward: who sees whom, where keys and values go, and what exits are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from foredraft.engines.attention import attention
from foredraft.engines.kv_memory import KvMemory, Run
from foredraft.engines.scene import Glimpse, Scene

TILE = 16
"""Rows of a product where rows must be equal to the bit: what a GPU computes in the time of one."""


@dataclass(slots=True)
class Part:
    """The new rows of one text.

    ``runs``: where the text's rows lie in the memory, the new ones last; ``start``: how many of them are there
    already. Rows up to ``base`` go on with the text, one below the other; from there on they are nodes of a
    tree: ``sees[i]`` says which rows from ``base`` on the i-th new node sees, itself included, and
    ``positions`` where all of these rows, those already there first, stand in the text. ``scene``: its images.
    """

    tokens: Sequence[int]
    runs: Sequence[Run]
    start: int
    base: int
    positions: Sequence[int] = ()
    sees: Sequence[Sequence[int]] = ()
    scene: Scene | None = None
    first: int = 0
    """Which row of the forward is its first; the forward says."""
    _masks: dict[int, Tensor | None] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """How many rows the text has then."""
        return self.start + len(self.tokens)

    @property
    def last(self) -> int:
        """The row of the forward after its last."""
        return self.first + len(self.tokens)

    @property
    def at(self) -> list[int]:
        """The positions of the new rows."""
        return [*range(self.start, self.base), *self.positions[len(self.positions) - len(self.sees) :]]

    @property
    def is_text(self) -> bool:
        """Whether none of its new rows is an image's, or stands between images."""
        return self.scene is None or self.scene.is_past(self.start)

    @property
    def stand(self) -> Tensor:
        """Where its new rows stand for the model: ``[axes, rows]``, or one axis where all are alike."""
        if self.scene is None:
            return torch.tensor([self.at])
        stand = self.scene.stand(self.at)
        return stand[:1] if self.is_text else stand

    @property
    def slots(self) -> list[int]:
        """Where the new rows go."""
        slots: list[int] = []
        before = 0
        for first, last in self.runs:
            slots += range(first + max(self.start - before, 0), last)
            before += last - first
        return slots

    def gather(self, plane: Tensor) -> Tensor:
        """The text's rows of a plane ``[1, heads, rows, dim]``; one run needs no copy."""
        pieces = [plane.narrow(2, first, last - first) for first, last in self.runs]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)

    def path(self, row: int, plane: Tensor) -> Tensor:
        """What its ``row``-th new row sees, of the text's rows ``[1, seen, heads, dim]``, in order of position."""
        chain = max(self.base - self.start, 0)
        if row < chain:
            return plane[:, : self.start + row + 1]
        seen = self.sees[row - chain]
        if list(seen) == list(range(len(seen))):
            return plane[:, : self.base + len(seen)]
        return torch.cat([plane[:, : self.base], plane[:, [self.base + column for column in seen]]], 1)

    def mask(self, window: int | None, like: Tensor) -> Tensor | None:
        """Added to the scores ``[rows, seen]`` where tokens see ``window`` tokens; None where they see everything."""
        key = window or 0
        if key not in self._masks:
            self._masks[key] = self._make_mask(window, like)
        return self._masks[key]

    def _make_mask(self, window: int | None, like: Tensor) -> Tensor | None:
        rows, end = len(self.tokens), self.end
        near = window is None or end <= window
        if rows == 1 and near and not self._is_choosy():
            return None
        mask = torch.zeros(rows, end, dtype=like.dtype)
        chain = max(self.base - self.start, 0)
        if chain:
            mask[:chain].fill_(-torch.inf).triu_(self.start + 1)
        if self.sees:
            blocked = [[-torch.inf] * len(self.positions) for _ in self.sees]
            for row, seen in zip(blocked, self.sees, strict=True):
                for column in seen:
                    row[column] = 0.0
            mask[chain:, self.base :] = torch.tensor(blocked, dtype=like.dtype)
        if window is not None and not near:
            seen_at = torch.tensor([*range(self.base), *self.positions])
            at = torch.tensor(self.at)
            mask.masked_fill_(seen_at <= at.unsqueeze(1) - window, -torch.inf)
        return mask.to(like.device)

    def _is_choosy(self) -> bool:
        return any(len(seen) != len(self.positions) for seen in self.sees)


class Rows:
    """One forward: the parts that share it. ``after``: told how many layers have run, and their hidden states.

    ``exact``: each row by itself along its own path, and rows of no meaning up to a whole tile; see ``exact``.
    """

    def __init__(
        self,
        memory: KvMemory,
        parts: Sequence[Part],
        after: Callable[[int, Tensor], None] | None = None,
        *,
        exact: bool = False,
    ) -> None:
        self.parts, self.exact = parts, exact
        self.scratch: dict[str, Any] = {}
        """What a layer works out once for all that come after it."""
        self._memory, self._after = memory, after
        first = 0
        for part in parts:
            part.first = first
            first = part.last
        self.count = first
        self._padding = -first % TILE if exact else 0
        slots = [slot for part in parts for slot in part.slots]
        in_one = slots == list(range(slots[0], slots[0] + first))
        self._first_slot = slots[0]
        self._slots = None if in_one else torch.tensor(slots, device=memory.planes[0].device)

    def inputs(self) -> tuple[Tensor, Tensor]:
        """Token ids and positions, ``[1, rows]`` each; positions have axes, ``[axes, 1, rows]``, beside an image."""
        padding = [0] * self._padding
        ids = torch.tensor([[*(token for part in self.parts for token in part.tokens), *padding]])
        if all(part.scene is None for part in self.parts):
            return ids, torch.tensor([[*(at for part in self.parts for at in part.at), *padding]])
        stands = [*(part.stand for part in self.parts), torch.tensor([padding], dtype=torch.int64)]
        axes = max(len(stand) for stand in stands)
        positions = torch.cat([stand.expand(axes, -1) for stand in stands], 1)
        return ids, positions if axes == 1 else positions.unsqueeze(1)

    def glimpses(self) -> list[Glimpse]:
        """What these rows have of images."""
        scenes = ((part, part.scene) for part in self.parts if part.scene is not None)
        seen = (scene.glimpse(part.start, part.end, part.first) for part, scene in scenes)
        return [glimpse for glimpse in seen if glimpse is not None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: dict[str, Any]) -> Tensor:
        """See ``attention.Forward``. The new rows are written first; then each part sees its own text."""
        keys, values = self._memory.planes[2 * layer], self._memory.planes[2 * layer + 1]
        if self._padding:
            key, value = key[:, :, : self.count], value[:, :, : self.count]
        for plane, new in ((keys, key), (values, value)):
            if self._slots is None:
                plane.narrow(2, self._first_slot, self.count).copy_(new)
            else:
                plane.index_copy_(2, self._slots, new)
        if self.exact:
            return self._attend_by_row(query, keys, values, rules)
        window = rules.get("sliding_window")
        seen = [
            attention(
                query if len(self.parts) == 1 else query[:, :, part.first : part.last],
                part.gather(keys),
                part.gather(values),
                part.mask(window, query),
                rules,
            )
            for part in self.parts
        ]
        return (seen[0] if len(seen) == 1 else torch.cat(seen, 2)).transpose(1, 2)

    def _attend_by_row(self, query: Tensor, keys: Tensor, values: Tensor, rules: dict[str, Any]) -> Tensor:
        window = rules.get("sliding_window") or 0
        seen = []
        for part in self.parts:
            text = [part.gather(plane).transpose(1, 2) for plane in (keys, values)]
            for row in range(len(part.tokens)):
                own_keys, own_values = (part.path(row, plane)[:, -window:].transpose(1, 2) for plane in text)
                at = part.first + row
                seen.append(attention(query[:, :, at : at + 1], own_keys, own_values, None, rules))
        if self._padding:
            seen.append(torch.zeros_like(query[:, :, self.count :, : values.shape[-1]]))
        return torch.cat(seen, 2).transpose(1, 2)

    def after(self, layers: int, hidden: Tensor) -> None:
        """See ``attention.Forward``."""
        if self._after is not None:
            self._after(layers, hidden)
