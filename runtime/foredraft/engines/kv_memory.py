"""Keys and values of a device's texts: rows in one piece of memory, found by their number.

A row holds one token's keys and values in all layers. Which row belongs to which text is for others to
know (``blocks``, ``tree_cache``). Used on the device's thread only, but for ``move_later``.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Run = tuple[int, int]
"""Rows that lie one after another: the first, and the one after the last."""

Moves = list[tuple[list[int], list[int]]]
"""Rows to copy, and where to."""


@dataclass(frozen=True, slots=True)
class KvShape:
    """What one token leaves in the memory: heads and their dimension, of each layer's keys and then its values."""

    planes: tuple[tuple[int, int], ...]
    dtype: torch.dtype

    @property
    def width(self) -> int:
        """Numbers that a plane's row has room for: where layers differ, the widest counts."""
        return max(heads * dim for heads, dim in self.planes)

    @property
    def row_bytes(self) -> int:
        """What one token takes in all layers."""
        return len(self.planes) * self.width * self.dtype.itemsize


class KvMemory:
    """Room for ``rows`` tokens. ``planes[2 * layer]`` are a layer's keys ``[1, heads, rows, dim]``, then its values."""

    def __init__(self, shape: KvShape, rows: int, device: torch.device) -> None:
        self.shape, self._device = shape, device
        self._moves: deque[tuple[list[int], list[int]]] = deque()
        self._take(rows)

    def _take(self, rows: int) -> None:
        shape = self.shape
        self._all = torch.empty(len(shape.planes), rows, shape.width, dtype=shape.dtype, device=self._device)
        self.planes = [
            self._all[number, :, : heads * dim].view(1, rows, heads, dim).transpose(1, 2)
            for number, (heads, dim) in enumerate(shape.planes)
        ]

    @property
    def rows(self) -> int:
        """How many tokens fit."""
        return self._all.shape[1]

    def move_later(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy rows to other places, before anything else is written. Never waits."""
        pairs = [(old, new) for old, new in zip(sources, targets, strict=True) if old != new]
        if pairs:
            self._moves.append(([old for old, _ in pairs], [new for _, new in pairs]))

    def due(self) -> Moves:
        """The moves that wait, which then wait no longer."""
        return [self._moves.popleft() for _ in range(len(self._moves))]

    def move(self, moves: Moves) -> None:
        """Do these. Each is read before it is written, so its rows may overlap."""
        for pair in moves:
            sources, targets = (torch.tensor(rows, device=self._device) for rows in pair)
            self._all.index_copy_(1, targets, self._all.index_select(1, sources))

    def settle(self) -> None:
        """Do the moves that wait."""
        self.move(self.due())

    def grow(self, rows: int, used: int) -> None:
        """Make room for ``rows`` tokens; the first ``used`` stay."""
        if rows > self.rows:
            before = self._all
            self._take(rows)
            self._all[:, :used] = before[:, :used]
