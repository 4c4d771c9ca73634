"""Drafts from llama.cpp's own server: guesses equal those of the model in this process, and no server ends a text."""

import asyncio
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import foredraft
from engines.histories import any_history
from engines.llama_servers import PROPERTIES, Running, answer, llama_server, pretender
from engines.tiny_gguf import CONTEXT, VOCABULARY, tiny_gguf, words
from foredraft.api.loading import LLAMA_SERVER, ModelOptions, load_draft
from foredraft.engines.llama_server import LlamaServer
from foredraft.engines.llama_server_draft import LlamaServerDrafter
from foredraft.engines.scripted import ScriptedTarget
from foredraft.errors import ConfigError, ForedraftError, ModelError
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree
from tokens_of import word_tokenizer

GREEDY = Sampling()
WARM = Sampling(temperature=0.8, top_k=60, top_p=0.95, seed=5)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def running(file: Path) -> Iterator[Running]:
    with llama_server(file, "--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off") as running:
        yield running


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize("nodes", [1, 2])
async def test_guesses_equal_those_of_the_model_in_this_process_after_any_history(
    file: Path, running: Running, sampling: Sampling, nodes: int
) -> None:
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python: make gguf-draft")
    from foredraft.engines.branches import TEXT, Row
    from foredraft.engines.llama_model import LlamaContext, LlamaModel
    from foredraft.engines.llama_options import LlamaOptions
    from foredraft.engines.numpy_guesses import best

    options = LlamaOptions(context=CONTEXT, threads=1, batch=64, branches=1, cache_type="f32", flash_attention=0)
    model = LlamaModel(file, options)

    def expected(text: list[int]) -> list[Guess]:
        context = LlamaContext(model)
        logits = context.decode([Row(token, at, [TEXT]) for at, token in enumerate(text)], [len(text) - 1]).copy()
        context.close()
        return best(logits, [len(text)], 3, sampling)[0]

    server = await asyncio.to_thread(LlamaServer, running.url)
    drafter = LlamaServerDrafter(server, candidates=VOCABULARY, nodes=nodes)
    history = partial(any_history, vocabulary=VOCABULARY, length=12, turns=8, within=1e-3)
    await history(drafter, expected, random.Random(3), sampling)  # type: ignore[arg-type]
    await drafter.close()


async def test_vocabularies_are_compared_token_by_token(running: Running) -> None:
    draft = await asyncio.to_thread(load_draft, running.draft, ModelOptions())
    assert draft.speak is not None
    await asyncio.to_thread(draft.speak, word_tokenizer(words()))
    assert draft.new().tokenizer_digest == word_tokenizer(words()).digest
    others = words()
    others[10:17] = [f"other{number}" for number in range(7)]
    with pytest.raises(ModelError, match=r"7 tokens differ: 10 is 'other0', here .*; 14 is 'other4', here .*; use a"):
        await asyncio.to_thread(draft.speak, word_tokenizer(others))
    longer = word_tokenizer([*words(), "more"])
    with pytest.raises(ModelError, match=r"1 tokens differ: 258 is 'more', here missing"):
        await asyncio.to_thread(draft.speak, longer)


def texts_of(tokens: list[int]) -> foredraft.Cloud:
    """A cloud that writes these, whatever is asked."""
    tokenizer = word_tokenizer(words())
    target = ScriptedTarget(
        lambda position: tokens[position % len(tokens)], vocab_size=VOCABULARY, tokenizer_digest=tokenizer.digest
    )
    return foredraft.Cloud(target, tokenizer)


async def written(draft: str, tokens: list[int], length: int = 40) -> foredraft.SessionReport:
    async with texts_of(tokens) as cloud, foredraft.connect(cloud, draft=draft) as edge:
        return await edge.generate([5], policy="sync:gamma=3", max_new_tokens=length, end_marks=False).finish()


def without_drafts(caplog: pytest.LogCaptureFixture) -> str:
    """What was said of a draft that failed; it is said once."""
    lines = [record.getMessage() for record in caplog.records if "goes on without drafts" in record.getMessage()]
    assert len(lines) == 1
    assert "\n" not in lines[0]
    return lines[0]


async def test_a_server_that_dies_ends_its_drafts_and_not_the_text(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = [7, 8, 9, 10]
    with llama_server(file) as running:

        async def killed() -> None:
            await asyncio.sleep(0.3)
            running.process.kill()

        async with texts_of(tokens) as cloud, foredraft.connect(cloud, draft=running.draft) as edge:
            killing = asyncio.create_task(killed())
            text = edge.generate([5], policy="sync:gamma=3", max_new_tokens=5000, end_marks=False)
            report = await text.finish()
            await killing
    assert report.tokens == [tokens[(1 + at) % 4] for at in range(5000)]
    assert report.drafted > 0
    assert "does not answer" in without_drafts(caplog)


async def test_a_text_longer_than_the_servers_context_goes_on_without_drafts(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async with texts_of([7, 8]) as cloud, foredraft.connect(cloud, draft=running.draft) as edge:
        report = await edge.generate([5] * 300, policy="sync", max_new_tokens=8, end_marks=False).finish()
        grown = await edge.generate([5] * 240, policy="sync", max_new_tokens=40, end_marks=False).finish()
    assert (report.new_tokens, report.drafted, grown.new_tokens) == (8, 0, 40)
    assert grown.drafted > 0
    assert "by --ctx-size" in without_drafts(caplog)


def whole(*best: tuple[int, float]) -> dict[str, Any]:
    return answer(*best, vocabulary=VOCABULARY)


async def test_several_nodes_are_asked_about_at_once_and_given_up_by_closing() -> None:
    asked, gone, all_in, all_gone = 0, 0, asyncio.Event(), asyncio.Event()

    async def completion(request: web.Request) -> web.StreamResponse:
        nonlocal asked, gone
        if (await request.json())["prompt"] == [0]:
            return web.json_response(whole())
        asked += 1
        if asked == 3:
            all_in.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone += 1
            if gone == 3:
                all_gone.set()
        raise AssertionError

    async with pretender(completion) as url:
        drafter = LlamaServerDrafter(await asyncio.to_thread(LlamaServer, url), nodes=3)
        tree = DraftTree([1, 2])
        await drafter.begin(tree.tokens, GREEDY)
        nodes = [tree.root, tree.add(tree.root, 3), tree.add(tree.root, 4)]
        step = asyncio.create_task(drafter.draft(nodes, 2))
        await all_in.wait()
        step.cancel()
        await asyncio.wait([step])
        await asyncio.wait_for(all_gone.wait(), 10)
        await drafter.close()


async def test_a_request_has_text_and_nodes_in_token_ids_and_tokens_beyond_the_targets_are_left_out() -> None:
    prompts: list[list[int]] = []

    async def completion(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompts.append(body["prompt"])
        assert body["cache_prompt"] is True
        assert body["n_predict"] == 1
        return web.json_response(whole((240, -0.1), (9, -0.5), (8, -2.0)))

    async with pretender(completion) as url:
        server = await asyncio.to_thread(LlamaServer, url)
        server.speak(word_tokenizer(words()[:200]))
        drafter = LlamaServerDrafter(server)
        tree = DraftTree([1, 2])
        await drafter.begin(tree.tokens, GREEDY)
        node = tree.add(tree.add(tree.root, 6), 7)
        dead = DraftTree([1]).root
        dead.alive = False
        (found, nothing) = await drafter.draft([node, dead], 3)
        drafter.advance([6])
        tree.advance([6])
        await drafter.draft([node], 1)
        await drafter.close()
    assert [guess.token for guess in found] == [9, 8]
    assert found[0].probability == pytest.approx(0.6065, abs=1e-3)
    assert nothing == []
    assert prompts[1:] == [[1, 2, 6, 7], [1, 2, 6, 7]]


OLD = {"completion_probabilities": [{"content": "a", "probs": [{"tok_str": "a", "prob": 0.5}]}]}


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, OLD, "an older version"),
        (200, {"content": "hello"}, "something else than a llama-server"),
        (200, {"completion_probabilities": []}, "predicted nothing"),
        (503, {"error": {"code": 503, "message": "Loading model"}}, "answered 503: 'Loading model'"),
        (401, {"error": {"code": 401, "message": "Invalid API Key"}}, "without --api-key"),
        (500, "<html>oh", "answered 500"),
    ],
)
async def test_what_answers_otherwise_is_refused_in_a_line_and_a_text_under_way_goes_on(
    status: int, body: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = True

    async def completion(_: web.Request) -> web.StreamResponse:
        return web.json_response(whole() if good else body, status=200 if good else status)

    async with pretender(completion) as url:
        async with texts_of([7, 8]) as cloud, foredraft.connect(cloud, draft=LLAMA_SERVER + url) as edge:
            good = False
            report = await edge.generate([5], policy="sync", max_new_tokens=9, end_marks=False).finish()
            assert (report.new_tokens, report.drafted) == (9, 0)
        assert said in without_drafts(caplog)
        with pytest.raises(ModelError) as error:
            await asyncio.to_thread(LlamaServer, url)
    assert said in str(error.value)
    assert url in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("properties", [{"hello": 1}, [], {**PROPERTIES, "default_generation_settings": {}}])
async def test_what_is_no_llama_server_is_refused(properties: Any) -> None:
    async def completion(_: web.Request) -> web.StreamResponse:
        return web.json_response(whole())

    async with pretender(completion, properties) as url:
        with pytest.raises(ModelError, match="is it another program, or an older version"):
            await asyncio.to_thread(load_draft, LLAMA_SERVER + url, ModelOptions())


@pytest.mark.parametrize(
    ("draft", "given", "error", "said"),
    [
        ("llama-server:127.0.0.1:8080", (), ConfigError, "is no URL of a llama-server; write llama-server:http://"),
        ("llama-server:http://127.0.0.1:9", (), ModelError, "does not answer .* is it running"),
        ("llama-server:http://127.0.0.1:9", ("context=5",), ConfigError, "unknown draft option 'context'"),
        ("llama-server:http://127.0.0.1:9", ("nodes=0",), ConfigError, "nodes=0: a whole number from 1"),
    ],
)
def test_a_server_that_cannot_be_asked_is_refused_by_name(
    draft: str, given: tuple[str, ...], error: type[ForedraftError], said: str
) -> None:
    with pytest.raises(error, match=said):
        load_draft(draft, ModelOptions(draft=given))
