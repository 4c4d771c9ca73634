"""A flat cache of keys and values: rows that are appended, gathered and forgotten.

One tensor ``[layers, 2, heads, capacity, dim]``. It does not know which rows mean what: its
owner says where a pass writes, and overwrites what it no longer needs. Used on the device's
thread only, but for ``gather_later``.
"""

from collections import deque

import torch
from torch import Tensor

from foredraft.engines.torch_layers import Store


def row_bytes(shape: tuple[int, int, int], dtype: torch.dtype) -> int:
    """What one row of a cache of ``shape`` (layers, heads, dim) takes."""
    layers, heads, dim = shape
    return layers * 2 * heads * dim * dtype.itemsize


class FlatCache:
    """The rows of one session. ``shape``: layers, heads, dimension of a head."""

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        layers, heads, dim = shape
        self._rows = torch.empty(layers, 2, heads, 0, dim, dtype=dtype, device=device)
        self._moves: deque[tuple[int, list[int]]] = deque()

    @property
    def capacity(self) -> int:
        """How many rows fit."""
        return self._rows.shape[3]

    def gather_later(self, start: int, rows: list[int]) -> None:
        """Move ``rows``, in this order, to ``start`` and the places after it, before the next write."""
        if rows != list(range(start, start + len(rows))):
            self._moves.append((start, rows))

    def prepare(self, capacity: int, used: int) -> None:
        """Do the moves that wait, and make room for ``capacity`` rows, keeping the first ``used``."""
        while self._moves:
            start, rows = self._moves.popleft()
            index = torch.tensor(rows, device=self._rows.device)
            self._rows[:, :, :, start : start + len(rows)] = self._rows.index_select(3, index)
        if capacity > self.capacity:
            layers, pair, heads, _, dim = self._rows.shape
            grown = self._rows.new_empty(layers, pair, heads, capacity, dim)
            grown[:, :, :, :used] = self._rows[:, :, :, :used]
            self._rows = grown

    def stores(self, start: int, end: int) -> list[Store]:
        """For each layer, what writes rows ``start`` to ``end`` and gives all rows up to ``end``."""
        return [self._store(keys_values, start, end) for keys_values in self._rows.unbind(0)]

    @staticmethod
    def _store(keys_values: Tensor, start: int, end: int) -> Store:
        def store(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            seen = keys_values[:, :, :end]
            all_keys, all_values = seen[0], seen[1]
            all_keys[:, start:].copy_(keys.transpose(0, 1))
            all_values[:, start:].copy_(values.transpose(0, 1))
            return all_keys, all_values

        return store
