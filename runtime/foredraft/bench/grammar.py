"""What holding a text to a grammar costs a pass, at a vocabulary of 152k tokens, and how many passes it saves.

The vocabulary is made up: single bytes, and pairs of the bundled tokenizer's tokens, so that masks are as large and
as crowded as a real one's. The pass is one of Qwen2.5-0.5B's shape, with random weights, on one thread.
"""

import json
import time
from collections.abc import Sequence
from itertools import product
from random import Random
from statistics import median
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from foredraft.api.cloud import Cloud
from foredraft.api.edge import connect
from foredraft.bench.gpu import pass_s
from foredraft.bench.one_thread import one_thread
from foredraft.bench.result import Figure, Result
from foredraft.calibration.shapes import random_model
from foredraft.demo_models import bundled_pair
from foredraft.engines.masks import allowed_tokens, held_to
from foredraft.engines.torch_target import TorchTarget
from foredraft.text.constraint import JSON_SCHEMA, Constraint
from foredraft.text.grammar import Grammar, Grammars, allows

MOST_SHARE: Final = 0.05
_SHAPE: Final = "qwen2.5-0.5b"
_NODES: Final = 4
_PROMPT: Final = "import json\n\nCOMMAND = '"
_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "action": {"enum": ["walk", "turn", "stop", "pick up", "put down"]},
        "metres": {"type": "number", "minimum": 0, "maximum": 30},
        "reason": {"type": "string", "maxLength": 16},
    },
    "required": ["action", "metres", "reason"],
    "additionalProperties": False,
}
_COMMAND: Final = Constraint(JSON_SCHEMA, json.dumps(_SCHEMA))


async def measure(passes: int = 30) -> Result:
    """The masks of a pass of five rows over the pass, and passes per token of a command. Raises MissingExtraError."""
    with one_thread():
        figures = await _of_masks(passes)
    figures += await _of_texts()
    return Result("grammar", f"medians of {passes} passes of {_NODES + 1} rows, one thread", tuple(figures))


async def _of_masks(passes: int) -> list[Figure]:
    model = random_model(_SHAPE, "float32", "cpu")
    target = TorchTarget(model, cache_bytes=1 << 28)
    whole_s = await pass_s(target, 1, _NODES + 1, passes)
    await target.close()
    grammars, end = _grammars(model.vocab_size)
    logits = torch.randn(_NODES + 1, model.vocab_size)
    masks_s: list[float] = []
    struck_s: list[float] = []
    luck = Random(0)
    while len(masks_s) < 8 * passes:
        grammar = grammars.begin(_COMMAND)
        grammar.follow((), 64)
        while not grammar.complete:
            chain = _chain(grammar, luck, end)
            began_s = time.perf_counter()
            masks = grammar.masks(chain, range(-1, len(chain) - 1))
            made_s = time.perf_counter()
            held_to(logits[: len(masks)], allowed_tokens(masks, model.vocab_size, model.device))
            masks_s.append(made_s - began_s)
            struck_s.append(time.perf_counter() - made_s)
            grammar.follow(chain[:1], 64)
    share = (median(masks_s) + median(struck_s)) / whole_s
    return [
        Figure("a pass", whole_s * 1e3, "ms"),
        Figure("its masks", median(masks_s) * 1e3, "ms", span=_tenths(masks_s)),
        Figure("striking out what they forbid", median(struck_s) * 1e3, "ms"),
        Figure("both over the pass", share, "x", MOST_SHARE),
    ]


def _tenths(values: Sequence[float]) -> tuple[float, float]:
    """The first and the last tenth, in milliseconds."""
    ranked = sorted(values)
    return ranked[len(ranked) // 10] * 1e3, ranked[len(ranked) * 9 // 10] * 1e3


def _chain(grammar: Grammar, luck: Random, end: int) -> list[int]:
    """Random tokens that may come one after another: one, or as many as a pass has."""
    chain: list[int] = []
    while len(chain) < _NODES:
        mask = grammar.masks(chain, range(-1, len(chain) - 1))[-1]
        choices = [token for token in luck.sample(range(8 * len(mask)), 4096) if allows(mask, token)]
        choices = choices or [token for token in range(8 * len(mask)) if allows(mask, token)]
        chain.append(luck.choice(choices))
        if chain[-1] == end:
            break
    return chain


def _grammars(size: int) -> tuple[Grammars, int]:
    """Grammars over a made-up vocabulary of ``size`` tokens, and its end mark."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = Tokenizer.from_file(str(bundled_pair().target / "tokenizer.json")).get_vocab()
    whole = sorted(token for token in known if set(token) <= set(letters) and len(token) > 1)
    pairs = ("".join(pair) for pair in product(whole, whole))
    names = list(dict.fromkeys([*letters, *whole, *(pair for pair, _ in zip(pairs, range(2 * size), strict=False))]))
    vocabulary = {name: number for number, name in enumerate(names[: size - 1])} | {"<end>": size - 1}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<end>"])
    return Grammars(made.to_str().encode(), size, [size - 1]), size - 1


async def _of_texts() -> list[Figure]:
    """Passes per token of the bundled pair's commands, by policy."""
    figures = []
    async with Cloud.load("demo") as cloud, connect(cloud, draft="demo") as edge:
        for policy in ("cloud", "seed", "auto"):
            asked = [
                edge.generate(_PROMPT, policy=policy, temperature=0.8, seed=seed, constraint=_COMMAND)
                for seed in range(8)
            ]
            reports = [await one.finish() for one in asked]
            whole = [report for report in reports if report.finish_reason == "stop"]
            if not all(json.loads(report.text) for report in whole):
                raise ValueError("a command that does not parse")
            tokens, passes = sum(one.new_tokens for one in reports), sum(one.passes for one in reports)
            figures.append(Figure(f"bundled pair, {policy}: passes per token", passes / tokens, "x"))
            forced = sum(one.forced for one in reports) / tokens
        figures.append(Figure("tokens that were forced", forced, "of 1"))
    return figures
