"""Passes over several texts at once: what the target takes when it batches."""

import functools
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

import torch

from foredraft.engines.kv_memory import KvMemory
from foredraft.engines.rows import Part, Rows
from foredraft.engines.torch_model import LoadedModel
from foredraft.engines.worker import DeviceWorker
from foredraft.profiles.fitting import Call, between
from foredraft.profiles.measuring import Plan, Progress, Stopwatch, Taken

CACHE_SHARE: Final = 0.5
"""How much of the device's free memory the caches of a batch may take."""


class Texts:
    """``batch`` texts of ``context`` random rows each, with room for ``most_rows`` more."""

    def __init__(self, model: LoadedModel, batch: int, context: int, most_rows: int) -> None:
        self._room = context + most_rows
        self._memory = KvMemory(model.kv, batch * self._room, model.device)
        for plane in self._memory.planes:
            plane.normal_()
        self._model, self._batch, self._context = model, batch, context

    def run(self, tokens: Sequence[int]) -> list[int]:
        """One pass of ``tokens`` after each text; what the model says next."""
        start, end = self._context, self._context + len(tokens)
        firsts = (text * self._room for text in range(self._batch))
        parts = [Part(tokens, [(first, first + end)], start, end) for first in firsts]
        said: list[int] = self._model.output(self._model.run(Rows(self._memory, parts))).argmax(-1).tolist()
        return said


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
            needed_bytes = batch * rows * model.kv.row_bytes
            if needed_bytes > CACHE_SHARE * free_bytes(model):
                left_out.append(f"a batch of {batch} over {held} tokens each needs {needed_bytes / 2**30:.1f} GiB")
                continue
            texts = Texts(model, batch, held, max(plan.tokens))
            counts = plan.tokens if batch in batches else between(plan.tokens) or plan.tokens
            for turn in range(plan.repeats + 1):
                for count in random.sample(counts, len(counts)):
                    tokens = [random.randrange(model.vocab_size) for _ in range(count)]
                    with Stopwatch() as timer:
                        await worker.run(functools.partial(texts.run, tokens))
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
