"""A real model as GGUF drafts, on llama.cpp, for the same weights dequantised: the texts are the target's alone."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import foredraft
from engines.llama_servers import llama_server
from engines.tiny_gguf import needs_llama, tiny_gguf
from foredraft.api.loading import ModelOptions, load_cloud_drafter
from foredraft.engines.torch_model import LoadedModel, load_model
from foredraft.engines.torch_target import TorchTarget
from foredraft.errors import ModelError
from foredraft.protocol.sampling import Sampling
from foredraft.text.tokenizer import Tokenizer
from lossless.oracle import Oracle
from lossless.server_process import ServerProcess
from paths import ROOT
from real_model import real_gguf, real_model

needs_llama()

LENGTH = 16
MOST_MB = 330.0
"""Peak memory of an edge with a draft of 135M weights in Q4 and a vocabulary of 49k."""
PROMPTS = [
    "The capital of France is",
    "def fibonacci(n: int) -> int:\n    ",
    "La capitale de l'Espagne est",
    "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n",
]


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(real_model())


@pytest.fixture(scope="module")
def truth(model: LoadedModel) -> Oracle:
    return Oracle.of(model.folder)


@asynccontextmanager
async def edge_of(
    model: LoadedModel, *given: str, draft: Path | None = None, beside: bool = False
) -> AsyncIterator[foredraft.Edge]:
    """An edge with the GGUF draft, or with one of lookup, and the GGUF draft beside the target."""
    target, tokenizer = TorchTarget(model, None, cache_bytes=1 << 30), Tokenizer.from_folder(model.folder)
    options = ModelOptions(threads=1, draft=("context=512", *given))
    new = load_cloud_drafter(real_gguf(), options, target.card, tokenizer) if beside else None
    cloud = foredraft.Cloud(target, tokenizer, new_drafter=new)
    mine: str | Path = "ngram" if beside else draft or real_gguf()
    async with cloud, foredraft.connect(cloud, draft=mine, options=ModelOptions() if beside else options) as edge:
        yield edge


def encoded(edge: foredraft.Edge, prompt: str) -> list[int]:
    assert edge.tokenizer is not None
    return edge.tokenizer.encode(prompt)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("policy", ["sync:gamma=4", "seed", "ahead", "auto"])
async def test_texts_are_those_of_the_target_alone(
    policy: str, temperature: float, model: LoadedModel, truth: Oracle
) -> None:
    sampling = Sampling(temperature, seed=3)
    async with edge_of(model) as edge:

        async def write(prompt: str) -> foredraft.SessionReport:
            return await edge.generate(
                prompt, policy=policy, temperature=temperature, seed=3, max_new_tokens=LENGTH, end_marks=False
            ).finish()

        reports = await asyncio.gather(*map(write, PROMPTS))
        for prompt, report in zip(PROMPTS, reports, strict=True):
            truth.check(report.tokens, encoded(edge, prompt), sampling)
        if policy == "sync:gamma=4":  # the same weights but for the rounding of activations: most drafts are right
            drafted, accepted = sum(one.drafted for one in reports), sum(one.accepted for one in reports)
            assert accepted / drafted > 0.6


async def test_a_draft_beside_the_target_changes_no_token(model: LoadedModel, truth: Oracle) -> None:
    async with edge_of(model, beside=True) as edge:
        report = await edge.generate(PROMPTS[1], policy="colocated", max_new_tokens=LENGTH, end_marks=False).finish()
        truth.check(report.tokens, encoded(edge, PROMPTS[1]), Sampling())
        assert report.accepted > 0


async def test_a_text_that_outgrows_the_drafts_context_goes_on_without_drafts(
    model: LoadedModel, truth: Oracle, caplog: pytest.LogCaptureFixture
) -> None:
    async with edge_of(model, "context=16") as edge:
        prompt = "one two three four five six seven eight nine ten " * 2
        report = await edge.generate(prompt, policy="sync", max_new_tokens=LENGTH, end_marks=False).finish()
        truth.check(report.tokens, encoded(edge, prompt), Sampling())
        grown = await edge.generate(PROMPTS[0], policy="sync", max_new_tokens=32, end_marks=False).finish()
        truth.check(grown.tokens, encoded(edge, PROMPTS[0]), Sampling())
    assert report.drafted == 0 < grown.accepted
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([line for line in said if "goes on without drafts" in line and "context of 16" in line]) == 1


async def test_a_draft_of_another_vocabulary_is_refused(model: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the vocabulary of the draft .*tiny\.gguf.* tokens differ: 0 is "):
        async with edge_of(model, draft=tiny_gguf(tmp_path / "tiny.gguf")):
            pass


def test_generate_drafts_with_a_gguf_file_without_torch_or_transformers_in_330_mb(model: LoadedModel) -> None:
    looking = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from foredraft.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    from foredraft.bench.edge_memory import memory_mb\n"
        "    print(memory_mb()['VmHWM'])"
    )
    words = ["generate", "--draft", str(real_gguf()), "--threads", "1"]
    words += ["--prompt", PROMPTS[0], "--policy", "sync", "--max-new-tokens", "8"]
    server = ServerProcess(model.folder)
    try:
        command = [sys.executable, "-c", looking, *words, "--server", server.url]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    finally:
        server.kill()
    assert done.returncode == 0, done.stderr
    text, peak_mb = done.stdout.strip().rsplit("\n", 1)
    assert text.startswith("Paris")
    assert float(peak_mb) <= MOST_MB


@pytest.mark.parametrize("temperature", [0.0, 0.8])
async def test_texts_are_those_of_the_target_alone_with_a_llama_server(
    temperature: float, model: LoadedModel, truth: Oracle
) -> None:
    with llama_server(real_gguf()) as running:
        target, tokenizer = TorchTarget(model, None, cache_bytes=1 << 30), Tokenizer.from_folder(model.folder)
        cloud = foredraft.Cloud(target, tokenizer)
        drafted = accepted = 0
        async with cloud, foredraft.connect(cloud, draft=running.draft) as edge:
            for prompt in PROMPTS:
                report = await edge.generate(
                    prompt, policy="sync", temperature=temperature, seed=3, max_new_tokens=LENGTH, end_marks=False
                ).finish()
                truth.check(report.tokens, encoded(edge, prompt), Sampling(temperature, seed=3))
                drafted, accepted = drafted + report.drafted, accepted + report.accepted
        assert accepted / drafted > 0.6
