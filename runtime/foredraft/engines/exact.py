"""Rows that are equal to the bit, whatever shares their forward.

In half precision a product of one row and one of five are different kernels, and a mask over a draft tree
changes the order of sums; the top two logits are often equal, so that neighbours would decide the text. Two rules
make a row's logits a function of its own path alone: every product runs in tiles of a fixed number of rows,
the last one padded (``Tiles``); and each row attends along its own path, dense and in order of position (``Rows`` with
``exact``). As in batch-invariant kernels (Thinking Machines, "Defeating Nondeterminism in LLM Inference", 2025).
"""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from foredraft.engines.kv_memory import KvMemory
from foredraft.engines.rows import TILE, Part, Rows
from foredraft.engines.torch_model import LoadedModel
from foredraft.errors import ConfigError

EXACT = ("auto", "on", "off")
MOST_PRICE = 1.10
"""``auto`` is on where a pass takes at most so many times as long."""

MOST_RANKS = 2
"""A sum of two is the same in either order."""

_CONTEXT, _REPEATS = 64, 7
_MATRIX_PRODUCTS = (torch.mm, torch.matmul, Tensor.mm, Tensor.matmul, Tensor.__matmul__)


class Tiles(TorchFunctionMode):
    """Within, products with a matrix of weights run in tiles of ``TILE`` rows."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear:
            return _in_tiles(lambda rows: func(rows, *args[1:], **kwargs), args[0])
        if func is torch.addmm and not kwargs:
            sums, values, weight = args
            if sums.dim() == 1:
                return _in_tiles(lambda rows: func(sums, rows, weight), values)
            return _in_tiles(func, sums, values, weight)
        if func in _MATRIX_PRODUCTS and args[1].dim() == 2:
            return _in_tiles(func, args[0], None, args[1])
        return func(*args, **kwargs)


def _in_tiles(product: Callable[..., Tensor], first: Tensor, second: Tensor | None = None, *rest: Any) -> Tensor:
    """``product`` of tiles of ``first``, ``[..., width]``, and ``second``, whose rows go along."""
    rows = first.reshape(-1, first.shape[-1])
    both = [rows] if second is None else [rows, second]
    tiles = []
    for start in range(0, len(rows), TILE):
        pieces = [part[start : start + TILE] for part in both]
        short = TILE - len(pieces[0])
        if short:
            pieces = [functional.pad(piece, (0, 0, 0, short)) for piece in pieces]
        tiles.append(product(*pieces, *rest)[: TILE - short])
    joined = tiles[0] if len(tiles) == 1 else torch.cat(tiles) if tiles else product(rows, *both[1:], *rest)
    return joined.reshape(*first.shape[:-1], joined.shape[-1])


def is_exact(model: LoadedModel, wanted: str) -> bool:
    """Whether to be exact: as ``wanted`` says, or for ``auto`` where it costs little. Raises ConfigError.

    The experts of a mixture then run one after another, for their products to have tiles. The sum over more than
    two ranks depends on where in the message a number stands, so there is nothing exact about it.
    """
    if wanted not in EXACT:
        raise ConfigError(f"exact must be {', '.join(EXACT)}, not {wanted!r}")
    summed = model.ranks.count if model.ranks is not None else 1
    if wanted == "on" and summed > MOST_RANKS:
        raise ConfigError(f"exact texts need a sum in one order: at most {MOST_RANKS} ranks, not {summed}")
    exact = wanted == "on" or (wanted == "auto" and summed <= MOST_RANKS and _is_cheap(model))
    if exact and hasattr(model.model, "set_experts_implementation"):
        model.model.set_experts_implementation("eager")
    return exact


def _is_cheap(model: LoadedModel) -> bool:
    cheap = max([price(model, rows) for rows in (1, 5)]) <= MOST_PRICE
    return cheap if model.ranks is None else model.ranks.agree(cheap)


@torch.inference_mode()
def price(model: LoadedModel, rows: int, texts: int = 1) -> float:
    """How many times as long a pass of so many rows of each of ``texts`` takes with the two rules."""
    end = _CONTEXT + rows
    memory = KvMemory(model.kv, end * texts, model.device)
    for plane in memory.planes:
        plane.zero_()
    took_s: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(_REPEATS + 2):
        for exact, times_s in took_s.items():
            began_s = time.perf_counter()
            parts = [Part([0] * rows, [(end * text, end * (text + 1))], _CONTEXT, end) for text in range(texts)]
            run(model, Rows(memory, parts, exact=exact), [slice(0, rows * texts)])[0].argmax(-1).tolist()
            if turn >= 2:
                times_s.append(time.perf_counter() - began_s)
    return median(took_s[True]) / median(took_s[False])


def run(model: LoadedModel, rows: Rows, wanted: Sequence[Any]) -> list[Tensor]:
    """One forward: the logits of the rows that each of ``wanted`` (a slice or an index) names."""
    if not rows.exact:
        hidden = model.run(rows)
        return [model.output(hidden[index]) for index in wanted]
    with Tiles():
        hidden = model.run(rows)
        return [model.output(hidden[index]) for index in wanted]
