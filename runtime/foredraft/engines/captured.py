"""Forwards of a few fixed sizes, captured on a GPU, which then runs them without being told each operation.

A pass of few rows takes a GPU less time than Python takes to tell it what to do. So a forward is captured once for
each of a few numbers of rows (CUDA graphs), cut after the layers where exits are read, and replayed with other
numbers in the same places: what a forward is about is a ``Plan``, in tensors that stay where they are. Rows of no
meaning fill it up. Larger forwards and models with attention of their own kind (windows, soft caps, sinks) run as
everywhere.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from foredraft.engines import attention
from foredraft.engines.kv_memory import KvMemory
from foredraft.engines.model_check import distance, most_apart, reason_of
from foredraft.engines.rows import Part, Rows
from foredraft.engines.torch_model import LoadedModel

_log = logging.getLogger(__name__)

SIZES: Final = (1, 2, 4, 8, 16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 640, 768, 1024)
"""Rows of the forwards that are captured: passes, and a chunk of a prompt beside them."""

LEAST_SIDE, MOST_SIDE, _FEW_ROWS = 16, 64, 256
"""Rows of a product on a GPU's matrix units, in forwards of so few rows and of more."""

MOST_NODES: Final = 63
MOST_TEXTS: Final = 64
IDS, POSITIONS, SLOTS, BEFORE, NODES, BEGIN, COUNT, BASE, FIRST, TAKEN = range(10)

Attend = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, float | None], Tensor]
"""As ``tree_kernel.attend``."""

After = Callable[[int, Tensor], None]


class UncapturableError(Exception):
    """This model's forwards cannot be captured, for the reason given."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A forward of ``rows`` rows in numbers. ``table``: the places in the memory of all rows of all texts.

    ``given`` ``[10, rows]``: of each row its token, position, place in the memory, how many rows of its text it sees
    from the beginning (BEFORE), and which nodes besides, as bits (NODES); of each tile where its text begins in the
    table (BEGIN), how many rows that has (COUNT), which of them is the first node (BASE), the tile's first row in the
    forward (FIRST) and how many it takes (TAKEN).
    """

    given: Tensor
    table: Tensor


def plan(parts: Sequence[Part], rows: int, most: int, scratch: int) -> Plan:
    """The forward of these parts, filled up to ``rows`` rows, in tiles of at most ``most``.

    ``scratch``: where rows of no meaning go.
    """
    lines: list[list[int]] = [[] for _ in range(10)]
    tables: list[Tensor] = []
    begin = 0
    for part in parts:
        chain = max(part.base - part.start, 0)
        lines[IDS] += part.tokens
        lines[POSITIONS] += part.at if part.scene is None else part.stand[0].tolist()
        lines[SLOTS] += part.slots
        lines[BEFORE] += [*range(part.start + 1, part.start + chain + 1), *(part.base for _ in part.sees)]
        lines[NODES] += [*(0 for _ in range(chain)), *(sum(1 << node for node in seen) for seen in part.sees)]
        tables += [torch.arange(first, last) for first, last in part.runs]
        _tile(lines, part.first, part.last, most, (begin, part.end, part.base))
        begin += part.end
    filled = len(lines[IDS])
    for number, value in ((IDS, 0), (POSITIONS, 0), (SLOTS, scratch), (BEFORE, 0), (NODES, 0)):
        lines[number] += [value] * (rows - filled)
    _tile(lines, filled, rows, most, (0, 0, 0))
    for line in lines[BEGIN:]:
        line += [0] * (rows - len(line))
    return Plan(torch.tensor(lines), torch.cat(tables))


def side_of(rows: int) -> int:
    """How many rows the products of a forward of ``rows`` rows have: a prompt's share what they read."""
    return LEAST_SIDE if rows <= _FEW_ROWS else MOST_SIDE


def tile_rows(rows: int, groups: int) -> int:
    """How many rows a tile may have, where ``groups`` query heads share a head of keys."""
    return max(1, side_of(rows) // groups)


def _tile(lines: list[list[int]], first: int, last: int, most: int, text: tuple[int, int, int]) -> None:
    for row in range(first, last, most):
        for line, value in zip(lines[BEGIN:], (*text, row, min(most, last - row)), strict=True):
            line.append(value)


class Size:
    """The forward of so many rows: an ``attention.Forward`` while it is captured."""

    def __init__(self, rows: int, memory: KvMemory, table: Tensor, cuts: Sequence[int], attend: Attend) -> None:
        self.given = torch.zeros(10, rows, dtype=torch.int64, device=table.device)
        self.given[SLOTS] = memory.rows - 1
        self.scratch: dict[str, Any] = {}
        self._memory, self._table, self._cuts, self._attend = memory, table, cuts, attend
        self._graph: torch.cuda.CUDAGraph | None = None
        self._pool: Any = None
        self._pieces: list[tuple[torch.cuda.CUDAGraph, int, Tensor]] = []

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: dict[str, Any]) -> Tensor:
        """See ``attention.Forward``."""
        own = [name for name in attention.RULES[1:] if rules.get(name) is not None]
        if own:
            raise UncapturableError(f"its attention has {own[0]}")
        keys, values = self._memory.planes[2 * layer], self._memory.planes[2 * layer + 1]
        return self._attend(query, key, value, keys, values, self.given, self._table, rules.get("scaling"))

    def after(self, layers: int, hidden: Tensor) -> None:
        """See ``attention.Forward``."""
        if self._graph is not None and layers in self._cuts:
            self._end(layers, hidden)
            self._begin()

    def capture(self, model: LoadedModel, pool: Any) -> Any:
        """Run it once by itself, which prepares what is prepared once, and once to be captured.

        ``pool``: the memory of others, which run at other times; the result is its own, or theirs.
        """
        self._pool = pool
        now = torch.cuda.current_stream(model.device)
        beside = torch.cuda.Stream(model.device)  # type: ignore[no-untyped-call]
        beside.wait_stream(now)
        try:
            with torch.cuda.stream(beside), attention.run(self, fuse=True):
                self._forward(model)
                self._begin()
                self._end(0, self._forward(model))
        finally:
            if self._graph is not None:
                with suppress(RuntimeError):
                    self._graph.capture_end()
            now.wait_stream(beside)
            self.scratch.clear()
        return self._pool

    def _begin(self) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")

    def _end(self, layers: int, hidden: Tensor) -> None:
        graph, self._graph = self._graph, None
        assert graph is not None
        graph.capture_end()
        self._pool = graph.pool()
        self._pieces.append((graph, layers, hidden))

    def _forward(self, model: LoadedModel) -> Tensor:
        ids, positions = self.given[IDS : IDS + 1], self.given[POSITIONS : POSITIONS + 1]
        hidden: Tensor = model.backbone(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
        return hidden

    def replay(self, after: After | None) -> Tensor:
        """The hidden states ``[rows, width]`` after the last layer; ``after`` hears of those at the cuts."""
        hidden = Tensor()
        for graph, layers, hidden in self._pieces:
            graph.replay()
            if layers and after is not None:
                after(layers, hidden)
        return hidden[0]


class CapturedForwards:
    """The captured forwards of a model over one memory, whose last row is for rows of no meaning."""

    def __init__(
        self, model: LoadedModel, memory: KvMemory, cuts: Sequence[int], attend: Attend, size: type[Size] = Size
    ) -> None:
        """Capture them. ``cuts``: after how many layers exits are read. Raises UncapturableError."""
        heads, dim = model.kv.planes[0]
        if any(plane != (heads, dim) for plane in model.kv.planes) or dim & (dim - 1) or dim < LEAST_SIDE:
            raise UncapturableError(f"its heads are of {sorted({dim for _, dim in model.kv.planes})} numbers")
        self._groups = int(model.config.num_attention_heads) // heads
        self._memory = memory
        self._table = torch.zeros(min(MOST_TEXTS * model.context, 1 << 22), dtype=torch.int32, device=model.device)
        self._sizes: dict[int, Size] = {}
        pool: Any = None
        for rows in reversed(SIZES):  # the largest first, whose memory the others then share
            self._sizes[rows] = size(rows, memory, self._table, cuts, attend)
            pool = self._sizes[rows].capture(model, pool)

    def fits(self, parts: Sequence[Part]) -> bool:
        """Whether these parts can run here; they are then given their places."""
        first = 0
        for part in parts:
            part.first = first
            first = part.last
        nodes = max((len(part.positions) for part in parts), default=0)
        few = first <= SIZES[-1] and nodes <= MOST_NODES and sum(part.end for part in parts) <= len(self._table)
        return few and all(part.is_text for part in parts)

    def run(self, parts: Sequence[Part], after: After | None = None, *, least: int = 0) -> Tensor:
        """One forward of parts that fit: ``[rows, width]``, and more rows of no meaning, ``least`` in all."""
        count = max(parts[-1].last, least)
        size = self._sizes[next(rows for rows in SIZES if rows >= count)]
        rows = size.given.shape[1]
        planned = plan(parts, rows, tile_rows(rows, self._groups), self._memory.rows - 1)
        size.given.copy_(planned.given)
        self._table[: len(planned.table)].copy_(planned.table)
        return size.replay(after)


@torch.inference_mode()
def capture(model: LoadedModel, memory: KvMemory, cuts: Sequence[int]) -> CapturedForwards | None:
    """The captured forwards of a model on a GPU, tried beside its own; None where there are none, which is said."""
    if model.device.type != "cuda" or model.ranks is not None:
        return None
    try:
        from foredraft.engines.tree_kernel import attend

        began_s = time.perf_counter()
        captured = CapturedForwards(model, memory, cuts, attend)
        off, allowed = apart(model, memory, captured), most_apart(model)
        if off <= allowed:
            took_s = time.perf_counter() - began_s
            _log.info("captured forwards of up to %d rows in %.1f s", SIZES[-1], took_s)
            return captured
        reason = f"captured, it says something else: {off:.2g} standard deviations, {allowed:.2g} may be rounding"
    except Exception as error:  # whatever a driver, a compiler or a model has against it, there is another way
        reason = reason_of(error)
    _log.warning("%s runs one operation after another: %s", model.folder, reason)
    return None


def apart(model: LoadedModel, memory: KvMemory, captured: CapturedForwards) -> float:
    """How far logits of a tree beside a chain are from those of the forward that is not captured: in the worst size."""
    generator = torch.Generator().manual_seed(1)
    draw = torch.randint(0, model.vocab_size, (12,), generator=generator).tolist()
    tree = Part(draw[:6], [(0, 3), (4, 7)], 0, 2, [2, 3, 3, 4], [[0], [0, 1], [0, 2], [0, 2, 3]])
    parts = [tree, Part(draw[6:], [(8, 14)], 0, 6)]
    wanted = model.output(model.run(Rows(memory, parts)))
    captured.fits(parts)
    return max(distance(model.output(captured.run(parts, least=rows)[: len(draw)]), wanted) for rows in SIZES)
