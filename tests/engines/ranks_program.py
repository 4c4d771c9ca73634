"""What one of two ranks does in ``test_ranks``: rank 0 writes what it heard to a file, rank 1 follows it.

python ranks_program.py FOLDER OUT PORT PORT    # where the ranks meet, and meet again
"""

import asyncio
import json
import os
import random
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from engines.test_exact import rows_of
from engines.torch_reference import GREEDY, WARM, PlainHeads, decode, prompt_of
from foredraft.engines import exact, target_pass
from foredraft.engines.following import follow
from foredraft.engines.torch_model import load_model
from foredraft.engines.torch_target import TorchTarget
from foredraft.protocol.ports import Pass, Prediction


async def told(target: TorchTarget) -> dict[str, Any]:
    """Texts of sessions side by side, what exits say, and a pass that is given up on the way."""
    prompts = [prompt_of(20 + seed, seed=seed) for seed in range(4)]
    samplings = [GREEDY, WARM, GREEDY, WARM]
    slots = [
        await target.slot(prompt, sampling, str(number))
        for number, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True))
    ]
    texts = await asyncio.gather(*(decode(slot, prompt, 12) for slot, prompt in zip(slots, prompts, strict=True)))
    heard: list[Prediction] = []
    slot = await target.slot([1, 2], WARM)

    def give_up(_: Prediction) -> None:
        given_up.cancel()

    given_up = asyncio.create_task(slot.verify(Pass((1, 2), (3,), (-1,), (1, 3)), give_up))
    await asyncio.wait([given_up])
    verdict = await slot.verify(Pass((1, 2), (3, 4), (-1, 0), (1, 3)), heard.append)
    slot.keep([0, 1])
    text = await decode(slot, [1, 2, 3, 4, 5], 5)
    exits = [[part.layer, part.tokens, part.confidence] for part in heard]
    return {"texts": texts, "exits": exits, "verdict": verdict.prediction.tokens, "after": text}


async def alike(target: TorchTarget) -> list[bool]:
    """Whether rows are equal to the bit: in trees and chunks, by themselves and beside three others."""
    forwards: list[list[Tensor]] = []

    def run(*forward: Any) -> list[Tensor]:
        forwards.append([logits.clone() for logits in exact.run(*forward)])
        return forwards[-1]

    vars(target_pass)["run"] = run
    alone = await rows_of(target, forwards, None)
    return [torch.equal(await rows_of(target, forwards, random.Random(beside), beside), alone) for beside in (0, 3)]


async def _closing(target: TorchTarget, asked: Awaitable[Any]) -> Any:
    said = await asked
    await target.close()
    return said


def main(folder: str, out: str, *ports: str) -> None:
    torch.set_num_threads(1)
    said: dict[str, Any] = {}
    for port, dtype, on, ask in zip(ports, ("float32", "bfloat16"), ("off", "on"), (told, alike), strict=True):
        os.environ["MASTER_PORT"] = port
        model = load_model(folder, dtype, tensor_parallel=2)
        assert model.ranks is not None
        target = TorchTarget(model, PlainHeads(model), cache_bytes=1 << 22, prefill_chunk=16, exact=on)
        if model.ranks.rank:
            follow(target)
        else:
            said[dtype] = asyncio.run(_closing(target, ask(target)))
            said["heads"] = model.kv.planes[0][0]
    if said:
        Path(out).write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
