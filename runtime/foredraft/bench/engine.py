"""The engines against transformers' own generation: same weights, threads, prompt and run.

Three questions: is the target alone (`cloud`, in memory) as fast as ``generate``; is co-located
speculation (`sync`, in memory) as fast as ``generate(assistant_model=...)``, each with a short draft
(gamma 4) and a longer one (gamma 8, transformers' own choice), of which the faster counts; and what do exits
add to a pass. Runs alternate, so that whatever else the machine does meets all alike.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from foredraft.api.cloud import Cloud
from foredraft.api.edge import Edge, connect
from foredraft.api.loading import DEMO, ModelOptions
from foredraft.bench.result import Figure, Result
from foredraft.engines.torch_target import TorchTarget
from foredraft.errors import ModelError
from foredraft.protocol.ports import Pass
from foredraft.protocol.sampling import Sampling

PROMPT = '''"""Read and write simple tables."""

import os
import re


class Table:
    """Rows of text, and the names of their columns."""

    def __init__(self, names):
'''
GAMMA = 4
MOST_EXITS_RATIO = 1.10
SEED = 1


async def measure(
    model: str = DEMO,
    exits: Path | None = None,
    draft: str = DEMO,
    threads: int = 0,
    *,
    new_tokens: int = 128,
    repeats: int = 5,
    passes: int = 150,
) -> Result:
    """Ratios of speed. Raises ModelError."""
    options = ModelOptions(threads=threads)
    cloud = await asyncio.to_thread(Cloud.load, model, exits=exits, options=options)
    target = cloud.target
    if not isinstance(target, TorchTarget):
        raise ModelError("only a torch target can be compared")
    async with cloud, connect(cloud, draft=draft, options=options) as edge:
        if edge.tokenizer is None:
            raise ModelError("the target has no tokenizer")
        tokens = edge.tokenizer.encode(PROMPT)
        theirs = await asyncio.to_thread(Transformers, _folder(model, "target"), _folder(draft, "draft"))
        figures = await _speeds(target, edge, theirs, tokens, new_tokens, repeats)
        if target.card.exits:
            ratio = await _exits_ratio(target, tokens, passes)
            figures.append(Figure("a pass of 5 tokens with exits against one without", ratio, "x", MOST_EXITS_RATIO))
    method = f"medians of {repeats} alternating runs of {new_tokens} tokens after {len(tokens)}; {model}, {draft}"
    return Result("engine", method, tuple(figures))


def _folder(model: str, part: str) -> Path:
    """Where a model lies."""
    from foredraft.demo_models import bundled_pair
    from foredraft.engines.model_files import locate

    return Path(getattr(bundled_pair(), part)) if model == DEMO else locate(model)


async def _speeds(
    target: TorchTarget, edge: Edge, theirs: "Transformers", tokens: list[int], new_tokens: int, repeats: int
) -> list[Figure]:
    """Tokens per second of each way, and the ratios that are promised."""

    async def ours(policy: str, temperature: float) -> None:
        target.pool.clear()  # or the prompt would be there already from the run before
        asked = edge.generate(
            tokens, policy=policy, temperature=temperature, seed=SEED, max_new_tokens=new_tokens, end_marks=False
        )
        await asked.finish()

    async def transformers(assistant: str, temperature: float) -> None:
        await asyncio.to_thread(theirs.generate, tokens, new_tokens, assistant, temperature)

    sync = f"sync:gamma={GAMMA}"
    ways = {
        "cloud": partial(ours, "cloud", 0.0),
        "generate": partial(transformers, "", 0.0),
        "sync": partial(ours, sync, 0.0),
        "sync, gamma 8": partial(ours, "sync:gamma=8", 0.0),
        "assisted": partial(transformers, "default", 0.0),
        "assisted, gamma 4": partial(transformers, "constant", 0.0),
        "sync at T = 0.8": partial(ours, sync, 0.8),
        "assisted at T = 0.8": partial(transformers, "default", 0.8),
    }
    speed = {name: new_tokens / seconds for name, seconds in (await _medians_s(ways, repeats)).items()}
    assisted = max(speed["assisted"], speed["assisted, gamma 4"])
    sync_speed = max(speed["sync"], speed["sync, gamma 8"])
    return [
        *(Figure(name, value, "tokens/s") for name, value in speed.items()),
        Figure("cloud against generate, greedy", speed["cloud"] / speed["generate"], "x", 1.0, at_least=True),
        Figure("the better sync against the better assisted, greedy", sync_speed / assisted, "x", 1.0, at_least=True),
        Figure("sync against assisted, T = 0.8", speed["sync at T = 0.8"] / speed["assisted at T = 0.8"], "x"),
    ]


async def _medians_s(ways: Mapping[str, Callable[[], Awaitable[None]]], repeats: int) -> dict[str, float]:
    """Median seconds of each way, in alternation, after one run of each that does not count."""
    times_s: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            began_s = time.perf_counter()
            await way()
            if turn:
                times_s[name].append(time.perf_counter() - began_s)
    return {name: median(times) for name, times in times_s.items()}


class Transformers:
    """The same pair in transformers' hands."""

    def __init__(self, target: Path, draft: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.set_verbosity_error()  # about how its own parts call each other
        logging.disable_progress_bar()
        self.target, self.draft = (
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for folder in (target, draft)
        )
        self._default = (
            self.draft.generation_config.num_assistant_tokens,
            self.draft.generation_config.num_assistant_tokens_schedule,
        )
        self._torch = torch

    def generate(
        self, tokens: list[int], new_tokens: int, assistant: str, temperature: float, seed: int = SEED
    ) -> None:
        """So many tokens after the prompt's; ``assistant``: none, "default" or "constant" (gamma 4)."""
        settings: dict[str, Any] = {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens, "do_sample": False}
        if temperature:
            settings |= {"do_sample": True, "temperature": temperature, "top_k": 0}
        if assistant:
            chosen = (GAMMA, "constant") if assistant == "constant" else self._default
            config = self.draft.generation_config
            config.num_assistant_tokens, config.num_assistant_tokens_schedule = chosen
            settings["assistant_model"] = self.draft
        prompt = self._torch.tensor([tokens])
        self._torch.manual_seed(seed)
        with self._torch.inference_mode():
            self.target.generate(prompt, attention_mask=self._torch.ones_like(prompt), pad_token_id=0, **settings)


async def _exits_ratio(target: TorchTarget, tokens: list[int], passes: int) -> float:
    """Median seconds of a pass that reads all exits, over those of the same pass without.

    The two alternate on one slot, whose text grows by a token with each.
    """
    slot = await target.slot(tokens, Sampling())
    await slot.prefill(tokens)
    times_s: dict[tuple[int, ...], list[float]] = {(): [], target.card.exits: []}
    for turn in range(passes + 10):
        for layers, times in times_s.items():
            batch = Pass((tokens[-1],), tuple(tokens[:GAMMA]), tuple(range(-1, GAMMA - 1)), layers)
            verdict = await slot.verify(batch, lambda prediction: None)
            if turn >= 10:
                times.append(verdict.pass_s)
    slot.close()
    without, with_exits = times_s.values()
    return median(with_exits) / median(without)
