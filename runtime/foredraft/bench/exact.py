"""Texts in bfloat16, exact and not: how many differ between policies, drafts and company, and what exactness costs.

Each prompt is written once by ``cloud`` alone, at temperature 0 and 0.8, and then in other ways, eight texts at a
time: exact texts are all equal to the first, others need not be.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from foredraft.api.cloud import Cloud
from foredraft.api.edge import Edge, connect
from foredraft.api.loading import DEMO, NGRAM, ModelOptions
from foredraft.bench.result import Figure, Result
from foredraft.engines.exact import MOST_PRICE, price
from foredraft.engines.torch_target import TorchTarget
from foredraft.errors import ModelError

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "The three laws of thermodynamics say that",
    "To change a bicycle tyre, first",
    "Dear Ms. Robinson, thank you for your letter of",
    "def fibonacci(n: int) -> int:\n    ",
    "class Stack:\n    def push(self, item):\n        ",
    "SELECT name, count(*) FROM users WHERE",
    "#include <stdio.h>\n\nint main(void) {\n",
    "for i in range(10):\n    if i % 2 == 0:\n        print(",
    "Die Hauptstadt von Deutschland ist",
    "La capitale de l'Espagne est",
    "El perro corre por el parque y",
    "东京是",
    "Les trois mousquetaires étaient",
    "I love pizza 🍕 and sushi 🍣 and",
    "🎉🎉🎉 Happy birthday 🎂",
    '{"name": "Ada", "born": 1815, "works": [',
    '[{"id": 1, "tags": ["a", "b"]}, {"id": 2,',
    "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n",
)
TEMPERATURES = (0.0, 0.8)
AT_ONCE = 8
SEED = 7


async def measure(
    model: str = DEMO, exits: Path | None = None, draft: str = DEMO, threads: int = 0, *, new_tokens: int = 24
) -> Result:
    """Texts that differ, with exactness on and off, and its price. ``draft``: the second one, beside n-grams.

    Raises ModelError.
    """
    figures: list[Figure] = []
    for on in ("on", "off"):
        options = ModelOptions(dtype="bfloat16", threads=threads, exact=on)
        cloud = await asyncio.to_thread(Cloud.load, model, exits=exits, options=options)
        if not isinstance(cloud.target, TorchTarget):
            raise ModelError("only a torch target can be exact")
        async with cloud, AsyncExitStack() as stack:
            edges = [await stack.enter_async_context(connect(cloud, draft=name)) for name in (NGRAM, draft)]
            differ, texts = await differing(edges, PROMPTS, new_tokens)
            bound = 0 if on == "on" else None
            figures.append(Figure(f"exact {on}: texts that differ, of {texts}", differ, "", bound))
            if on == "off":
                figures += [_price(cloud.target, rows, sessions) for sessions in (1, AT_ONCE) for rows in (1, 5)]
    method = f"bfloat16, {len(PROMPTS)} prompts, {new_tokens} tokens, drafts: {NGRAM} and {draft}; {model}"
    return Result("exact", method, tuple(figures))


async def differing(edges: Sequence[Edge], prompts: Sequence[str], new_tokens: int) -> tuple[int, int]:
    """How many texts are not what ``cloud`` wrote alone, and how many there are with those. An edge a draft."""
    ways = list(zip((*edges, *edges), ("sync", "seed", "ahead", "auto"), strict=True))
    differ = texts = 0
    for temperature in TEMPERATURES:
        wanted = await _texts(edges[0], "cloud", prompts, temperature, new_tokens, 1)
        texts += len(wanted)
        for edge, policy in [(edges[0], "cloud"), *ways]:
            said = await _texts(edge, policy, prompts, temperature, new_tokens, AT_ONCE)
            differ += sum(one != other for one, other in zip(said, wanted, strict=True))
            texts += len(said)
    return differ, texts


async def _texts(
    edge: Edge, policy: str, prompts: Sequence[str], temperature: float, new_tokens: int, at_once: int
) -> list[list[int]]:
    room = asyncio.Semaphore(at_once)

    async def write(prompt: str) -> list[int]:
        async with room:
            asked = edge.generate(
                prompt, policy=policy, temperature=temperature, seed=SEED, max_new_tokens=new_tokens, end_marks=False
            )
            return (await asked.finish()).tokens

    return await asyncio.gather(*map(write, prompts))


def _price(target: TorchTarget, rows: int, sessions: int) -> Figure:
    on_gpu = target.model.device.type != "cpu"
    name = f"a pass of {rows} rows, {sessions} sessions: exact over not"
    return Figure(name, price(target.model, rows, sessions), "x", MOST_PRICE if on_gpu else None)
