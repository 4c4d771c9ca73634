"""Passes over several texts at once: what a target that batches would take.

The target of this project serves sessions one after another, so this is no port: the model's own
layers run over copies of one text, which need the time and the memory that different texts would.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

import torch
from torch import Tensor

from foredraft.calibration.fitting import Call, between
from foredraft.calibration.measuring import Plan, Progress, Stopwatch, Taken
from foredraft.engines.flat_cache import row_bytes
from foredraft.engines.torch_layers import Store
from foredraft.engines.torch_model import LoadedModel, run_range
from foredraft.engines.worker import DeviceWorker

CACHE_SHARE: Final = 0.5
"""How much of the device's free memory the caches of a batch may take."""


class Copies:
    """Copies of one text on a model: a cache ``[layers, 2, batch * heads, context + rows, dim]`` of random rows."""

    def __init__(self, model: LoadedModel, batch: int, context: int, most_rows: int) -> None:
        layers, heads, dim = model.kv_shape
        shape = (layers, 2, batch * heads, context + most_rows, dim)
        self._rows = torch.randn(shape, dtype=model.dtype, device=model.device)
        self._model, self._batch, self._context = model, batch, context

    def run(self, tokens: Sequence[int]) -> list[int]:
        """One pass of ``tokens`` after each copy; what the model says next."""
        model, start = self._model, self._context
        end = start + len(tokens)
        hidden = model.embed(torch.tensor([list(tokens)] * self._batch, device=model.device))
        stores = [self._store(keys_values, start, end) for keys_values in self._rows.unbind(0)]
        masks = model.masks.chain(start, end)
        hidden = run_range(model, hidden, model.rotary.span(start, end), masks, stores, range(len(model.layers)))
        said: list[int] = model.logits(hidden.flatten(0, 1)).argmax(-1).tolist()
        return said

    def _store(self, keys_values: Tensor, start: int, end: int) -> Store:
        def store(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            """``keys`` and ``values`` are the first copy's, and so every copy's."""
            seen = keys_values[:, :, :end]
            for rows, new in zip(seen.unbind(0), (keys, values), strict=True):
                rows.view(self._batch, -1, end, rows.shape[-1])[:, :, start:].copy_(new.transpose(0, 1))
            return seen[0], seen[1]

        return store


async def measure_batches(
    model: LoadedModel, plan: Plan, batches: Sequence[int], *, progress: Progress | None = None
) -> tuple[Taken, list[str]]:
    """Passes of ``plan.tokens`` per text over ``plan.contexts``, ``batches`` of them at once.

    New tokens and context of a call are sums over its batch, as in a profile. Also says what was
    left out because its cache would not fit.
    """
    taken, left_out = Taken(plan), []
    cases = [(batch, held) for batch in batches for held in plan.contexts]
    cases += [(batch, held) for batch in between(batches) for held in between(plan.contexts) or plan.contexts]
    worker, random = DeviceWorker("batches"), Random(0)
    try:
        for done, (batch, held) in enumerate(cases, 1):
            rows = held + max(plan.tokens)
            needed_bytes = batch * rows * row_bytes(model.kv_shape, model.dtype)
            if needed_bytes > CACHE_SHARE * free_bytes(model):
                left_out.append(f"a batch of {batch} over {held} tokens each needs {needed_bytes / 2**30:.1f} GiB")
                continue
            copies = Copies(model, batch, held, max(plan.tokens))
            counts = plan.tokens if batch in batches else between(plan.tokens) or plan.tokens
            for turn in range(plan.repeats + 1):
                for count in random.sample(counts, len(counts)):
                    tokens = [random.randrange(model.vocab_size) for _ in range(count)]
                    with Stopwatch() as timer:
                        await worker.run(functools.partial(copies.run, tokens))
                    if turn:
                        call = Call(count * batch, held * batch, batch)
                        taken.add(call, timer.seconds, held_out=batch not in batches)
            if progress is not None:
                progress(done / len(cases))
    finally:
        await worker.close()
    return taken, left_out


def free_bytes(model: LoadedModel) -> int:
    """Free memory of the model's device; of the machine for a CPU, as far as the system says."""
    if model.device.type == "cuda":
        return int(torch.cuda.mem_get_info(model.device)[0])
    return _free_memory()


def _free_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return int(dict(line.split(":", 1) for line in lines)["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 << 30
