"""Attention over trees on a GPU: rows of many texts, each over its own text's scattered rows, in one launch.

A program takes a few rows of one text (a ``tile``) and one head of the keys, and walks over the text's rows in the
memory, block by block, with running sums (FlashAttention, Dao et al. 2022; scattered rows as in PagedAttention, Kwon
et al. 2023; walks in parts as in Flash-Decoding, Dao et al. 2023). Sizes are read from tensors, so that a captured
launch serves texts of any length.
"""

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from foredraft.engines.captured import side_of

_FEW_ROWS, _SPLITS = 16, 8
"""Up to so many rows there are too few tiles to fill a GPU, so each walk is split, and its parts are joined."""

_STAGES = 2
"""Blocks of keys and values that are on their way at once."""


@triton.jit  # type: ignore[untyped-decorator]
def _store(  # type: ignore[no-untyped-def]
    key, value, keys, values, given, rows,
    key_row, key_head, value_row, value_head, plane_row, plane_head, DIM: tl.constexpr,
):  # fmt: skip
    row, head, dims = tl.program_id(0), tl.program_id(1), tl.arange(0, DIM)
    place = tl.load(given + 2 * rows + row) * plane_row + head * plane_head + dims
    tl.store(keys + place, tl.load(key + row * key_row + head * key_head + dims))
    tl.store(values + place, tl.load(value + row * value_row + head * value_head + dims))


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    query, keys, values, out, logs, given, table, scale,
    rows, query_row, query_head, plane_row, plane_head, out_row, out_head, out_split,
    GROUPS: tl.constexpr, SIDE: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr, SPLITS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    tile, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    begin = tl.load(given + 5 * rows + tile)
    count = tl.load(given + 6 * rows + tile)
    base = tl.load(given + 7 * rows + tile)
    first = tl.load(given + 8 * rows + tile)
    taken = tl.load(given + 9 * rows + tile)
    side, dims = tl.arange(0, SIDE), tl.arange(0, DIM)
    row, group = first + side // GROUPS, side % GROUPS
    inside = side < taken * GROUPS
    heads = head * GROUPS + group
    ours = tl.load(
        query + (row * query_row + heads * query_head)[:, None] + dims[None, :], mask=inside[:, None], other=0.0
    )
    before = tl.load(given + 3 * rows + row, mask=inside, other=0)
    nodes = tl.load(given + 4 * rows + row, mask=inside, other=0)
    best = tl.full([SIDE], float("-inf"), tl.float32)
    total = tl.zeros([SIDE], tl.float32)
    seen = tl.zeros([SIDE, DIM], tl.float32)
    span = tl.cdiv(tl.cdiv(count, SPLITS), BLOCK) * BLOCK
    for start in range(split * span, tl.minimum(count, (split + 1) * span), BLOCK):
        column = start + tl.arange(0, BLOCK)
        there = column < count
        place = tl.load(table + begin + column, mask=there, other=0).to(tl.int64) * plane_row + head * plane_head
        key = tl.load(keys + place[None, :] + dims[:, None], mask=there[None, :], other=0.0)
        value = tl.load(values + place[:, None] + dims[None, :], mask=there[:, None], other=0.0)
        node = tl.maximum(column - base, 0)
        on_path = (column >= base)[None, :] & (((nodes[:, None] >> node[None, :]) & 1) == 1)
        sees = there[None, :] & ((column[None, :] < before[:, None]) | on_path)
        scores = tl.where(sees, tl.dot(ours, key, input_precision=PRECISION) * scale, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, 1))
        safe = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp(scores - safe[:, None])
        shrink = tl.exp(best - safe)
        total = total * shrink + tl.sum(weights, 1)
        seen = seen * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
        best = higher
    seen = seen / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(
        out + split * out_split + (row * out_row + heads * out_head)[:, None] + dims[None, :],
        seen.to(out.dtype.element_ty),
        mask=inside[:, None],
    )
    if SPLITS > 1:
        log = tl.where(total == 0.0, float("-inf"), best + tl.log(tl.where(total == 0.0, 1.0, total)))
        tl.store(logs + (split * out_split + row * out_row + heads * out_head) // DIM, log, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _join(  # type: ignore[no-untyped-def]
    parts, logs, out, out_row, out_head, out_split, DIM: tl.constexpr, SPLITS: tl.constexpr
):
    split, dims = tl.arange(0, SPLITS), tl.arange(0, DIM)
    at = tl.program_id(0) * out_row + tl.program_id(1) * out_head
    log = tl.load(logs + (split * out_split + at) // DIM)
    best = tl.max(log, 0)
    weights = tl.exp(log - tl.where(best == float("-inf"), 0.0, best))
    total = tl.sum(weights, 0)
    seen = tl.load(parts + split[:, None] * out_split + at + dims[None, :])
    joined = tl.sum(seen * weights[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    tl.store(out + at + dims, joined.to(out.dtype.element_ty))


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    given: Tensor,
    table: Tensor,
    scale: float | None,
) -> Tensor:
    """Store the new rows, and give what they see: ``[1, rows, query heads, dim]``.

    ``query`` ``[1, query heads, rows, dim]``; ``key``, ``value`` ``[1, heads, rows, dim]``, of which the planes of the
    memory, ``keys`` and ``values`` ``[1, heads, all rows, dim]``, get a copy;
    ``given`` ``[10, rows]`` and ``table``: see ``captured.Plan``.
    """
    _, query_heads, rows, dim = query.shape
    heads = keys.shape[1]
    groups = query_heads // heads
    out = torch.empty(1, rows, query_heads, dim, dtype=query.dtype, device=query.device)
    splits = _SPLITS if rows <= _FEW_ROWS else 1
    block = 64 if splits > 1 else _block(dim * keys.element_size(), query.device)
    parts, logs = out, out
    if splits > 1:
        parts = torch.empty(splits, rows, query_heads, dim, device=query.device)
        logs = torch.empty(splits, rows, query_heads, device=query.device)
    store: Any = _store[(rows, heads)]
    store(
        key, value, keys, values, given, rows,
        key.stride(2), key.stride(1), value.stride(2), value.stride(1), keys.stride(2), keys.stride(1), DIM=dim,
    )  # fmt: skip
    walk: Any = _attend[(rows, heads, splits)]
    walk(
        query, keys, values, parts, logs, given, table, dim**-0.5 if scale is None else scale,
        rows, query.stride(2), query.stride(1), keys.stride(2), keys.stride(1), *out.stride()[1:3], parts.stride(0),
        GROUPS=groups, SIDE=max(side_of(rows), triton.next_power_of_2(groups)), DIM=dim, BLOCK=block, SPLITS=splits,
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32", num_stages=_STAGES,
    )  # fmt: skip
    if splits > 1:
        join: Any = _join[(rows, query_heads)]
        join(parts, logs, out, *out.stride()[1:3], parts.stride(0), DIM=dim, SPLITS=splits)
    return out


@cache
def _block(row_bytes: int, device: torch.device) -> int:
    """How many rows of the memory are read at once: as the memory beside the GPU's units has room for."""
    if device.type != "cuda":
        return 128
    room_bytes: int = torch.cuda.get_device_properties(device).shared_memory_per_block_optin  # type: ignore[attr-defined]
    return next((rows for rows in (128, 64, 32) if 2 * _STAGES * rows * row_bytes < room_bytes), 16)
