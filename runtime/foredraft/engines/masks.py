"""Who sees whom in one forward: additive attention masks for chains and for trees.

A pass appends rows to a flat cache. Rows of the text see all of the text before them; the row
of a draft node sees the text and its own ancestors (the tree attention of SpecInfer, Miao et
al. 2024). Layers with a sliding window see only what is near in the text, wherever its row is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Masks:
    """Masks ``[rows, seen]``, added to the scores, of layers that see everything and of layers with a window.

    None where every row sees everything.
    """

    full: Tensor | None
    sliding: Tensor | None


@dataclass(frozen=True, slots=True)
class MaskMaker:
    """Makes masks for one model: its type, its device, and its sliding window if it has one."""

    dtype: torch.dtype
    device: torch.device
    window: int | None

    def chain(self, start: int, end: int) -> Masks:
        """Rows ``start`` to ``end`` go on with the text, one below the other."""
        if end - start == 1 and (self.window is None or end <= self.window):
            return Masks(None, None)
        rows = torch.arange(start, end, device=self.device)
        seen = torch.arange(end, device=self.device)
        return self._masks(seen > rows.unsqueeze(1), rows, seen)

    def tree(self, start: int, base: int, visible: Sequence[Sequence[int]], tree_positions: Sequence[int]) -> Masks:
        """Rows ``start`` to ``base`` go on with the text; then come the rows of ``len(visible)`` nodes.

        ``tree_positions``: the positions of all rows from ``base`` on, those of nodes already cached first.
        ``visible[i]``: which of these the i-th new node sees, counted from ``base``, itself included.
        ``start`` may lie beyond ``base`` when nodes are cached already.
        """
        tree_rows, new_nodes = len(tree_positions), len(visible)
        seen_nodes = torch.zeros(new_nodes, tree_rows, dtype=torch.bool)
        pairs = [(row, column) for row, columns in enumerate(visible) for column in columns]
        seen_nodes[tuple(torch.tensor(pairs).T)] = True
        trunk = max(base - start, 0)
        seen = torch.cat([torch.arange(base), torch.tensor(tree_positions, dtype=torch.int64)]).to(self.device)
        rows = torch.cat([seen[base - trunk : base], seen[base + tree_rows - new_nodes :]])
        blocked = seen.new_zeros(trunk + new_nodes, base + tree_rows, dtype=torch.bool)
        blocked[:trunk] = torch.arange(base + tree_rows, device=self.device) > rows[:trunk].unsqueeze(1)
        blocked[trunk:, base:] = ~seen_nodes.to(self.device)
        return self._masks(blocked, rows, seen)

    def _masks(self, blocked: Tensor, rows: Tensor, seen: Tensor) -> Masks:
        """``rows`` and ``seen`` are positions in the text."""
        full = self._additive(blocked)
        if self.window is None:
            return Masks(full, None)
        return Masks(full, self._additive(blocked | (seen <= rows.unsqueeze(1) - self.window)))

    def _additive(self, blocked: Tensor) -> Tensor:
        return torch.zeros(blocked.shape, dtype=self.dtype, device=self.device).masked_fill_(blocked, -torch.inf)
