"""Drafts with another tokenizer than the target's: translated where that is wanted, and the text is the target's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

import foredraft
from engines.llama_servers import answer, pretender
from engines.tiny_gguf import VOCABULARY, needs_llama
from foredraft.api.loading import DEMO, LLAMA_SERVER, ModelOptions
from foredraft.cli.main import app
from foredraft.demo_models import bundled_pair
from foredraft.engines.torch_model import load_model
from foredraft.engines.torch_target import TorchTarget
from foredraft.errors import ConfigError, ModelError
from foredraft.protocol.sampling import Sampling
from foredraft.text.tokenizer import Tokenizer
from lossless.oracle import Oracle
from lossless.server_process import ServerProcess
from real_model import real_gguf, real_model

LENGTH = 20
PROMPTS = ["def fibonacci(n: int) -> int:\n    ", "import os\n\n\nclass Stack:\n    def push(self, item):\n"]


@asynccontextmanager
async def edge_of(folder: Path, draft: str | Path, *, translate: bool = True) -> AsyncIterator[foredraft.Edge]:
    cloud = foredraft.Cloud(TorchTarget(load_model(folder), None, cache_bytes=1 << 30), Tokenizer.from_folder(folder))
    options = ModelOptions(threads=1, translate=translate)
    async with cloud, foredraft.connect(cloud, draft=draft, options=options) as edge:
        yield edge


async def acceptance(edge: foredraft.Edge, truth: Oracle, policy: str, temperature: float) -> float:
    """The share of drafted tokens that was accepted; the texts are checked."""
    drafted = accepted = 0
    assert edge.tokenizer is not None
    for prompt in PROMPTS:
        report = await edge.generate(
            prompt, policy=policy, temperature=temperature, seed=3, max_new_tokens=LENGTH, end_marks=False
        ).finish()
        truth.check(report.tokens, edge.tokenizer.encode(prompt), Sampling(temperature, seed=3))
        assert report.translated
        drafted, accepted = drafted + report.drafted, accepted + report.accepted
    return accepted / drafted


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("policy", ["sync:gamma=4", "ahead"])
async def test_texts_of_a_real_target_are_its_own_with_the_bundled_draft(policy: str, temperature: float) -> None:
    folder = real_model()
    async with edge_of(folder, DEMO) as edge:
        assert edge.tokenizer is not None
        assert edge.tokenizer.digest == edge.ready.tokenizer_digest
        await acceptance(edge, Oracle.of(folder), policy, temperature)


async def test_a_gguf_draft_of_another_family_is_translated_and_helps() -> None:
    needs_llama()
    folder = bundled_pair().target
    async with edge_of(folder, real_gguf()) as edge:
        assert await acceptance(edge, Oracle.of(folder), "sync:gamma=4", 0.0) > 0.05


@pytest.mark.parametrize("draft", ["torch", "gguf"])
async def test_it_is_refused_where_nobody_asked_for_a_translation(draft: str) -> None:
    if draft == "gguf":
        needs_llama()
    given = real_gguf() if draft == "gguf" else real_model()
    with pytest.raises(ModelError, match="use a draft of the same family"):
        async with edge_of(bundled_pair().target, given, translate=False):
            pass


async def test_a_server_cannot_be_translated() -> None:
    from aiohttp import web

    async def completion(_: web.Request) -> web.StreamResponse:
        return web.json_response(answer(vocabulary=VOCABULARY))

    async with pretender(completion) as url:
        with pytest.raises(ConfigError, match="cannot be translated: that takes a model in this process"):
            async with edge_of(bundled_pair().target, LLAMA_SERVER + url):
                pass


def test_generate_says_that_the_draft_was_translated() -> None:
    server = ServerProcess(bundled_pair().target)
    words = ["generate", "--server", server.url, "--prompt", PROMPTS[0], "--max-new-tokens", "8", "--policy", "sync"]
    try:
        refused = CliRunner().invoke(app, [*words, "--draft", str(real_model())])
        done = CliRunner().invoke(app, [*words, "--draft", str(real_model()), "--translate"])
    finally:
        server.kill()
    assert (refused.exit_code, done.exit_code) == (1, 0), done.output
    assert "--translate this one" in refused.stderr
    assert "drafted tokens accepted, translated from another tokenizer" in done.stderr
