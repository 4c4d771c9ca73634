"""Many sessions on one target against transformers' own batches: same weights, threads, prompts and run.

What do eight edges get that decode alone (`cloud`, in memory) beside ``generate`` with a batch of eight, and beside
transformers' continuous batching; how long does the last of them wait for its first token; and what do more
rows and exits add to a forward. Runs alternate, so that whatever else the machine does meets all alike.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

from foredraft.api.cloud import Cloud
from foredraft.api.edge import Edge, connect
from foredraft.api.loading import DEMO, ModelOptions
from foredraft.bench.result import Figure, Result
from foredraft.engines.model_files import locate
from foredraft.engines.torch_target import TorchSlot, TorchTarget
from foredraft.errors import ModelError
from foredraft.protocol.ports import Pass
from foredraft.protocol.sampling import Sampling

PROMPTS = (
    "Write a short poem about a river that forgets its name.",
    "def mean(values):\n    ",
    "Explain to a child why the sky is blue, in three sentences.",
    'class Table:\n    """Rows of text, and the names of their columns."""\n\n    def __init__(self, names):\n',
    "List five things that one should pack for a week in the mountains.",
    "import os\nimport re\n\n\ndef lines_of(path):\n",
    "What is the difference between a virus and a bacterium?",
    "for name in sorted(names):\n    print(",
)
EDGES = len(PROMPTS)
CONTEXT = 128
PASS_ROWS = 5
BLOCK = 10
"""Passes of a kind in a row, as a server runs them: a model that takes turns with another finds no cache warm."""

BOUNDS = {"generate": 0.85, "generate_batch": 1.0, "alone": 1.05, "first": 2.5, "exits": 1.1}
DEMO_BOUNDS = {"pass": 0.5, "rows": 3.5, "exits": 1.1}
"""What is promised of the bundled target, which is too small for what is promised of texts."""


async def measure(
    model: str = DEMO,
    exits: Path | None = None,
    threads: int = 0,
    *,
    new_tokens: int = 64,
    repeats: int = 3,
    passes: int = 60,
    peer: bool = True,
) -> Result:
    """Ratios of speed. ``peer``: beside transformers' continuous batching as well. Raises ModelError."""
    options = ModelOptions(threads=threads)
    cloud = await asyncio.to_thread(Cloud.load, model, exits=exits, options=options)
    target = cloud.target
    if not isinstance(target, TorchTarget) or cloud.tokenizer is None:
        raise ModelError("only a torch target can be compared")
    theirs = await asyncio.to_thread(Transformers, _folder(model))
    prompts = sorted(map(cloud.tokenizer.encode, PROMPTS), key=len, reverse=True)  # the longest is the one alone
    async with cloud, AsyncExitStack() as stack:
        edges = [await stack.enter_async_context(connect(cloud, draft="ngram")) for _ in PROMPTS]
        bounds = DEMO_BOUNDS if model == DEMO else BOUNDS
        figures = await _texts(target, edges, theirs, prompts, new_tokens, repeats, peer, bounds)
        figures += await _forwards(target, theirs, passes, bounds)
    method = f"medians of {repeats} alternating runs of {new_tokens} tokens, {EDGES} prompts; {model}"
    return Result("batching", method, tuple(figures))


def _folder(model: str) -> Path:
    from foredraft.demo_models import bundled_pair

    return Path(bundled_pair().target) if model == DEMO else locate(model)


async def _texts(
    target: TorchTarget,
    edges: Sequence[Edge],
    theirs: "Transformers",
    prompts: Sequence[list[int]],
    new_tokens: int,
    repeats: int,
    peer: bool,
    bounds: Mapping[str, float],
) -> list[Figure]:
    """Whole texts: tokens per second of all ways, and the longest wait for a first token."""
    waits_s: dict[str, list[float]] = {"one": [], "all": []}

    async def one_text(edge: Edge, tokens: list[int]) -> float:
        """Seconds to the first token."""
        began_s, first_s = time.perf_counter(), 0.0
        asked = edge.generate(tokens, policy="cloud", max_new_tokens=new_tokens, end_marks=False)
        async for _ in asked:
            first_s = first_s or time.perf_counter() - began_s
        return first_s

    def ours(name: str, count: int) -> Callable[[], Awaitable[None]]:
        async def write() -> None:
            target.pool.clear()  # or the prompts would be there already from the run before
            both = zip(edges[:count], prompts[:count], strict=True)
            waits_s[name].append(max(await asyncio.gather(*(one_text(edge, prompt) for edge, prompt in both))))

        return write

    def of_theirs(write: Callable[[Sequence[list[int]], int], None], count: int) -> Callable[[], Awaitable[None]]:
        return lambda: asyncio.to_thread(write, prompts[:count], new_tokens)

    ways = {
        "one": ours("one", 1),
        "generate, one": of_theirs(theirs.generate, 1),
        "all": ours("all", EDGES),
        "generate, all": of_theirs(theirs.generate, EDGES),
    }
    if peer:
        ways["generate_batch, all"] = of_theirs(theirs.generate_batch, EDGES)
    took_s = await _medians_s(ways, repeats)
    speed = {name: new_tokens * (1 if "one" in name else EDGES) / seconds for name, seconds in took_s.items()}
    first = {name: median(waits[1:]) for name, waits in waits_s.items()}
    figures = [Figure(name, value, "tokens/s") for name, value in speed.items()]
    figures += [Figure(f"first token, longest of {name}", value * 1e3, "ms") for name, value in first.items()]

    def ratio(name: str, value: float, bound: str, at_least: bool = True) -> Figure:
        return Figure(name, value, "x", bounds.get(bound), at_least=at_least)

    figures.append(ratio("one edge over generate", speed["one"] / speed["generate, one"], "alone"))
    figures.append(ratio(f"{EDGES} edges over generate", speed["all"] / speed["generate, all"], "generate"))
    if peer:
        against = speed["all"] / speed["generate_batch, all"]
        figures.append(ratio(f"{EDGES} edges over generate_batch", against, "generate_batch"))
    waited = first["all"] / first["one"]
    return [*figures, ratio(f"longest wait for a first token of {EDGES} over 1", waited, "first", at_least=False)]


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


async def _forwards(
    target: TorchTarget, theirs: "Transformers", passes: int, bounds: Mapping[str, float]
) -> list[Figure]:
    """Single forwards over ``CONTEXT`` tokens, as the device's thread times them, in turns of ``BLOCK``."""
    vocabulary = target.card.vocab_size
    texts = [[(7 * number + 31 * place) % vocabulary for place in range(CONTEXT)] for number in range(EDGES)]
    theirs.hold(texts[0])
    chain = tuple(range(1, PASS_ROWS)), tuple(range(-1, PASS_ROWS - 2))
    ways = {
        "pass": (1, Pass((1,), *chain)),
        "one": (1, Pass((1,))),
        "all": (EDGES, Pass((1,))),
        "exits": (EDGES, Pass((1,), exits=target.card.exits[:2])),
    }
    times_s: dict[str, list[float]] = {name: [] for name in (*ways, "theirs")}
    for _ in range(-(-passes // BLOCK)):
        times_s["theirs"] += [await asyncio.to_thread(theirs.step, PASS_ROWS) for _ in range(BLOCK)][1:]
        for name, (count, batch) in ways.items():
            slots = [await target.slot([*text, 1], Sampling()) for text in texts[:count]]
            for slot, text in zip(slots, texts, strict=False):
                await slot.prefill(text[slot.cached :])
            times_s[name] += [await together_s(slots, batch) for _ in range(BLOCK)][1:]
            for slot in slots:
                slot.close()
    took = {name: median(times) for name, times in times_s.items()}
    figures = [
        Figure(f"a pass of {PASS_ROWS} rows", took["pass"] * 1e3, "ms"),
        Figure("over transformers' forward of as many", took["pass"] / took["theirs"], "x", bounds.get("pass")),
        Figure(f"{EDGES} sessions of one row over one session", took["all"] / took["one"], "x", bounds.get("rows")),
    ]
    if target.card.exits:
        ratio = took["exits"] / took["all"]
        figures.append(Figure(f"{EDGES} sessions with exits over without", ratio, "x", bounds.get("exits")))
    return figures


async def together_s(slots: Sequence[TorchSlot], batch: Pass) -> float:
    """Seconds on the device of the one forward that these passes share."""
    verdicts = await asyncio.gather(*(slot.verify(batch, lambda prediction: None) for slot in slots))
    return max(verdict.pass_s for verdict in verdicts)


class Transformers:
    """The same target in transformers' hands."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.set_verbosity_error()  # about how its own parts call each other
        logging.disable_progress_bar()
        self._torch = torch
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._cache: Any = None

    def generate(self, prompts: Sequence[list[int]], new_tokens: int) -> None:
        """So many tokens after each prompt, in one batch."""
        torch, longest = self._torch, max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            self._model.generate(ids, attention_mask=mask, **_settings(new_tokens))

    def generate_batch(self, prompts: Sequence[list[int]], new_tokens: int) -> None:
        """The same by continuous batching."""
        from transformers import GenerationConfig

        config = GenerationConfig(**_settings(new_tokens) | {"eos_token_id": -1})
        said = self._model.generate_batch(inputs=[list(prompt) for prompt in prompts], generation_config=config)
        if [len(one.generated_tokens) for one in said.values()] != [new_tokens] * len(prompts):
            raise ModelError("transformers' continuous batching did not write what it was asked for; see its log")

    def hold(self, text: list[int]) -> None:
        """Put a text into a cache."""
        from transformers import DynamicCache

        self._cache = DynamicCache(config=self._model.config)
        with self._torch.inference_mode():
            self._model(self._torch.tensor([text]), past_key_values=self._cache)

    def step(self, rows: int) -> float:
        """Seconds of one forward of so many rows after the text."""
        with self._torch.inference_mode():
            began_s = time.perf_counter()
            self._model(self._torch.tensor([[1] * rows]), past_key_values=self._cache).logits.argmax(-1).tolist()
            took_s = time.perf_counter() - began_s
            self._cache.crop(-rows)
        return took_s


def _settings(new_tokens: int) -> dict[str, Any]:
    return {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}
