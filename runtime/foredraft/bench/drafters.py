"""A GGUF draft on llama.cpp beside the same weights, dequantised, on torch in fp32: one thread each, in turns.

A step is timed at the port, thread hops in it. Acceptance is of the first guess, along texts that the target (the
same weights in torch) wrote; also where the GGUF is translated as though its tokenizer were another, and of a
``llama-server`` that runs the same file. Start-up and memory are of processes of their own.
"""

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from foredraft.api.cloud import Cloud
from foredraft.api.edge import connect
from foredraft.api.loading import LLAMA_SERVER, Draft, ModelOptions, load_draft, load_target
from foredraft.bench.child import READY_S
from foredraft.bench.edge_memory import memory_mb
from foredraft.bench.result import Figure, Result
from foredraft.engines.llama_draft import LlamaDrafter
from foredraft.errors import ForedraftError
from foredraft.protocol.ports import Drafter, Target
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree
from foredraft.text.tokenizer import Tokenizer

MOST_RATIO: Final = 0.6
MOST_ADDED_MS: Final = 1.5
CONTEXT: Final = 256
NODES: Final = (1, 8)
TEMPERATURES: Final = (0.0, 0.8)
PROMPTS: Final = (
    "The three laws of thermodynamics say that",
    "def fibonacci(n: int) -> int:\n    ",
    "Once upon a time, in a small village by the sea,",
    "La capitale de l'Espagne est",
)
_OPTIONS: Final = ModelOptions(threads=1)
_WIDTH: Final = 4
_TORCH: Final = "torch"


async def measure(file: Path, turns: int = 15, new_tokens: int = 64, server: str = "") -> Result:
    """``turns``: steps of each kind; they alternate. ``new_tokens``: of each text. ``server``: a llama-server's URL.

    Raises ModelError, ConfigError.
    """
    starts = [await _start(file, engine) for engine in ("llama.cpp", _TORCH)]
    llama = load_draft(file, _OPTIONS)
    target, tokenizer = load_target(file, None, _OPTIONS, cache_bytes=1 << 30, max_slots=4)
    llama = llama.speaking(tokenizer, tokenizer.digest)
    torch = _torch_draft(file)
    drafts = {"GGUF": llama, _TORCH: torch, "GGUF, translated": llama.translating(tokenizer)}
    if server:
        drafts["llama-server"] = load_draft(LLAMA_SERVER + server, _OPTIONS).speaking(tokenizer, tokenizer.digest)
    try:
        figures = await _steps(llama, torch, tokenizer, turns)
        if server:
            figures += await _server_steps(llama, drafts["llama-server"], tokenizer, turns)
        figures += await _acceptance(drafts, target, tokenizer, new_tokens)
    finally:
        await llama.close()
        await torch.close()
        await target.close()
    method = f"{file.name}: medians of {turns} alternating steps over {CONTEXT} tokens, one thread"
    return Result("drafters", method, (*figures, *(figure for found in starts for figure in found)))


def _torch_draft(file: Path) -> Draft:
    from foredraft.engines.torch_draft import TorchDrafter
    from foredraft.engines.torch_model import load_model
    from foredraft.engines.worker import DeviceWorker

    model, worker = load_model(file), DeviceWorker("draft")
    return Draft(partial(TorchDrafter, model, worker=worker), None, worker)


async def _server_steps(llama: Draft, server: Draft, tokenizer: Tokenizer, turns: int) -> list[Figure]:
    """What a step of one node takes over HTTP, beside the process's own."""
    text = (tokenizer.encode(" ".join(PROMPTS)) * CONTEXT)[:CONTEXT]
    figures: list[Figure] = []
    for sampling in (Sampling(), Sampling(TEMPERATURES[1], seed=1)):
        first, second = llama.new(), server.new()
        ours, theirs = await _timed((first, second), text, 1, sampling, turns)
        ratio = median(theirs.took_ms) / median(ours.took_ms)
        figures.append(Figure(f"llama-server over GGUF, 1 node at T = {sampling.temperature:g}", ratio, "x"))
        await first.close()
        await second.close()
    return figures


async def _steps(llama: Draft, torch: Draft, tokenizer: Tokenizer, turns: int) -> list[Figure]:
    text = (tokenizer.encode(" ".join(PROMPTS)) * CONTEXT)[:CONTEXT]
    figures: list[Figure] = []
    for sampling in (Sampling(), Sampling(TEMPERATURES[1], seed=1)):
        for nodes in NODES if sampling.temperature == 0.0 else NODES[:1]:
            what = f"{nodes} node{'s' * (nodes > 1)} at T = {sampling.temperature:g}"
            first, second = llama.new(), torch.new()
            ours, theirs = await _timed((first, second), text, nodes, sampling, turns)
            figures += [
                Figure(f"GGUF, a step of {what}", median(ours.took_ms), "ms"),
                Figure(f"torch, a step of {what}", median(theirs.took_ms), "ms"),
                Figure(
                    f"GGUF over torch, {what}",
                    median(ours.took_ms) / median(theirs.took_ms),
                    "x",
                    bound=MOST_RATIO if nodes == 1 else None,
                ),
                Figure(
                    f"around llama.cpp's decode, {what}",
                    median(ours.added_ms),
                    "ms",
                    bound=MOST_ADDED_MS if nodes == 1 else None,
                ),
            ]
            await first.close()
            await second.close()
    return figures


class _Taken:
    """Milliseconds of steps, and what of them was not llama.cpp's."""

    def __init__(self) -> None:
        self.took_ms: list[float] = []
        self.added_ms: list[float] = []


async def _timed(
    drafters: Sequence[Drafter], text: list[int], nodes: int, sampling: Sampling, turns: int
) -> list[_Taken]:
    taken = [_Taken() for _ in drafters]
    for drafter in drafters:
        await drafter.begin(text, sampling)
        await drafter.draft([DraftTree(text).root], _WIDTH)
    for turn in range(turns + 1):
        for drafter, found in zip(drafters, taken, strict=True):
            await drafter.begin(text, sampling)
            tree = DraftTree(text)
            await drafter.draft([tree.root], _WIDTH)
            wanted = [tree.add(tree.root, text[turn + place]) for place in range(nodes)]
            before_s = _decoding_s(drafter)
            began_s = time.perf_counter()
            await drafter.draft(wanted, _WIDTH)
            took_s = time.perf_counter() - began_s
            if turn:  # the first warms up
                found.took_ms.append(took_s * 1e3)
                found.added_ms.append((took_s - (_decoding_s(drafter) - before_s)) * 1e3)
    return taken


def _decoding_s(drafter: Drafter) -> float:
    return drafter.decoding_s if isinstance(drafter, LlamaDrafter) else 0.0


async def _acceptance(
    drafts: Mapping[str, Draft], target: Target, tokenizer: Tokenizer, new_tokens: int
) -> list[Figure]:
    figures: list[Figure] = []
    for temperature in TEMPERATURES:
        sampling = Sampling(temperature, seed=7)
        texts = [await _text(target, tokenizer, prompt, sampling, new_tokens) for prompt in PROMPTS]
        for name, draft in drafts.items():
            right = [await _right(draft, prompt, tokens, sampling) for prompt, tokens in texts]
            share = sum(right) / sum(len(tokens) for _, tokens in texts)
            figures.append(Figure(f"acceptance of {name} at T = {temperature:g}", share, ""))
    return figures


async def _text(
    target: Target, tokenizer: Tokenizer, prompt: str, sampling: Sampling, new_tokens: int
) -> tuple[list[int], list[int]]:
    """The prompt's tokens, and what the target alone writes after them."""
    cloud = Cloud(target, tokenizer)
    async with connect(cloud, draft="ngram") as edge:
        asked = {"temperature": sampling.temperature, "seed": sampling.seed, "max_new_tokens": new_tokens}
        report = await edge.generate(prompt, policy="cloud", end_marks=False, **asked).finish()  # type: ignore[arg-type]
    return tokenizer.encode(prompt), list(report.tokens)


async def _right(draft: Draft, prompt: list[int], tokens: list[int], sampling: Sampling) -> int:
    """How many of the tokens are the draft's first guess after those before."""
    drafter, tree, right = draft.new(), DraftTree(prompt), 0
    await drafter.begin(prompt, sampling)
    for token in tokens:
        guesses = (await drafter.draft([tree.root], 1))[0]
        right += bool(guesses) and guesses[0].token == token
        tree.advance([token])
        drafter.advance([token])
    await drafter.close()
    return right


async def _start(file: Path, engine: str) -> list[Figure]:
    """Start-up and memory of a drafter in a process of its own."""
    command = [sys.executable, "-m", __name__, str(file), engine]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), READY_S)
    if process.returncode:
        raise ForedraftError(f"the process of the {engine} draft failed with exit code {process.returncode}")
    said = json.loads(out)
    return [
        Figure(f"{engine}, until the first step is done", said["start_s"], "s"),
        Figure(f"{engine}, resident then", said["resident"], "MB"),
    ]


async def _begin(file: Path, engine: str) -> None:
    began_s = time.perf_counter()
    draft = _torch_draft(file) if engine == _TORCH else load_draft(file, _OPTIONS)
    drafter, text = draft.new(), [1, 2, 3, 4]
    await drafter.begin(text, Sampling())
    await drafter.draft([DraftTree(text).root], _WIDTH)
    print(json.dumps({"start_s": time.perf_counter() - began_s, "resident": memory_mb()["VmRSS"]}))
    await drafter.close()
    await draft.close()


if __name__ == "__main__":
    asyncio.run(_begin(Path(sys.argv[1]), sys.argv[2]))
