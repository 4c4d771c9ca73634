"""A real instruct model: prose, code, four languages, emoji and JSON, as transformers writes them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch

import foredraft
from foredraft.api.conversation import Conversation
from foredraft.bench.exact import PROMPTS, differing
from foredraft.engines.torch_model import LoadedModel, load_model
from foredraft.engines.torch_target import TorchSlot, TorchTarget
from foredraft.exits.heads import ExitHeads
from foredraft.exits.train import train_exits
from foredraft.protocol.sampling import Sampling
from foredraft.text.chat_template import render
from foredraft.text.tokenizer import Tokenizer
from lossless.oracle import Oracle
from lossless.server_process import ServerProcess
from paths import ROOT
from real_model import real_model

GREEDY = Sampling()
LENGTH = 12


@pytest.fixture(scope="module")
def folder() -> Path:
    return real_model()


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load_model(folder)


@pytest.fixture(scope="module")
def truth(folder: Path) -> Oracle:
    return Oracle.of(folder)


@asynccontextmanager
async def edge_of(model: LoadedModel, heads: ExitHeads | None = None) -> AsyncIterator[foredraft.Edge]:
    target = TorchTarget(model, heads, cache_bytes=1 << 30)
    cloud = foredraft.Cloud(target, Tokenizer.from_folder(model.folder))
    async with cloud, foredraft.connect(cloud, draft="ngram") as edge:
        yield edge


def encoded(edge: foredraft.Edge, prompt: str) -> list[int]:
    assert edge.tokenizer is not None
    return edge.tokenizer.encode(prompt)


@pytest.mark.parametrize("policy", ["cloud", "sync", "auto"])
async def test_twenty_greedy_texts_are_those_of_generate_eight_edges_at_a_time(
    policy: str, model: LoadedModel, truth: Oracle
) -> None:
    async with edge_of(model) as edge:
        room = asyncio.Semaphore(8)

        async def write(prompt: str) -> foredraft.SessionReport:
            async with room:
                return await edge.generate(prompt, policy=policy, max_new_tokens=LENGTH, end_marks=False).finish()

        reports = await asyncio.gather(*map(write, PROMPTS))
        for prompt, report in zip(PROMPTS, reports, strict=True):
            truth.check(report.tokens, encoded(edge, prompt), GREEDY)


async def test_a_sampled_text_is_the_same_alone_and_beside_seven_others(model: LoadedModel, truth: Oracle) -> None:
    sampling = Sampling(temperature=0.8, seed=3)
    options = {"temperature": 0.8, "seed": 3, "max_new_tokens": LENGTH, "end_marks": False}
    async with edge_of(model) as edge:
        texts = [edge.generate(prompt, policy="sync", **options).finish() for prompt in PROMPTS[:8]]  # type: ignore[arg-type]
        together = await asyncio.gather(*texts)
        alone = await edge.generate(PROMPTS[0], policy="cloud", **options).finish()  # type: ignore[arg-type]
        for report in (together[0], alone):
            truth.check(report.tokens, encoded(edge, PROMPTS[0]), sampling)


async def test_in_bfloat16_exact_texts_are_one_text_each_in_any_policy_draft_and_company(folder: Path) -> None:
    options = foredraft.ModelOptions(dtype="bfloat16", exact="on")
    async with foredraft.Cloud.load(folder, options=options) as cloud, foredraft.connect(cloud, draft="ngram") as edge:
        assert await differing([edge, edge], PROMPTS[4:5], 4) == (0, 12)


async def test_the_answer_ends_at_the_models_own_mark(model: LoadedModel) -> None:
    async with edge_of(model) as edge:
        report = await edge.generate(PROMPTS[-1], policy="sync", max_new_tokens=60).finish()
    assert report.finish_reason == "stop"
    assert report.tokens[-1] in edge.ready.stop_tokens
    assert "4" in report.text
    assert "<|im_end|>" not in report.text


async def test_characters_of_several_tokens_are_streamed_whole(model: LoadedModel) -> None:
    async with edge_of(model) as edge:
        generation = edge.generate("东京是", policy="cloud", max_new_tokens=24)
        pieces = [piece async for piece in generation]
        assert edge.tokenizer is not None
        assert "".join(piece.text for piece in pieces) == edge.tokenizer.decode(generation.report.tokens)
    of_tokens = [piece.text for piece in pieces if piece.tokens]
    assert "" in of_tokens  # a part of a character is held back
    assert not any("\N{REPLACEMENT CHARACTER}" in text for text in of_tokens)


async def test_exits_of_a_quick_training_change_no_token(
    model: LoadedModel, truth: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foredraft.exits.data.MIN_HELD_OUT_TOKENS", 512)  # calibrated badly, which costs no token
    out = tmp_path / "exits"
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")[:2_000]
    train_exits(model, [text], (10, 20), out, rank=8, steps=2, batch=2, window=128, held_out=[text])
    async with edge_of(model, ExitHeads.load(out, model)) as edge:
        for policy in ("seed:threshold=0.0", "ahead:threshold=0.0"):
            generation = edge.generate(PROMPTS[5], policy=policy, max_new_tokens=2 * LENGTH, end_marks=False)
            report = await generation.finish()
            assert report.hints > 0
            truth.check(report.tokens, encoded(edge, PROMPTS[5]), GREEDY)


async def test_a_killed_server_is_started_again_and_the_text_goes_on(
    folder: Path, truth: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    server = await asyncio.to_thread(ServerProcess, folder)
    try:
        retry = foredraft.Retry(attempts=300, first_s=0.05, most_s=0.5)
        async with foredraft.connect(server.url, draft="ngram", retry=retry) as edge:
            generation = edge.generate(PROMPTS[1], policy="sync", max_new_tokens=LENGTH, end_marks=False)
            await anext(generation)
            server.kill()
            await asyncio.to_thread(server.start)
            report = await generation.finish()
            truth.check(report.tokens, encoded(edge, PROMPTS[1]), GREEDY)
        assert report.reconnects > 0
    finally:
        server.kill()


class Slots(TorchTarget):
    """Notes of each session how many tokens it had, and how many of them were in the cache."""

    opened: list[tuple[int, int]]

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> TorchSlot:
        slot = await super().slot(tokens, sampling, owner)
        self.opened.append((len(tokens), slot.cached))
        return slot


async def test_a_further_turn_of_a_conversation_runs_nothing_but_what_is_new(model: LoadedModel) -> None:
    target = Slots(model, cache_bytes=1 << 30)
    target.opened = []
    tokenizer = Tokenizer.from_folder(model.folder)
    async with foredraft.Cloud(target, tokenizer) as cloud, foredraft.connect(cloud, draft="ngram") as edge:
        conversation = Conversation(edge, await edge.chat_card(), "Answer in a few words.")
        for said in ("What is the capital of France?", "And of Italy?", "Thank you!"):
            generation = conversation.ask(said, policy="sync", temperature=0.0, max_new_tokens=20)
            await generation.finish()
            conversation.answered(generation)
    turns = [tokens for tokens, _ in target.opened]
    answers = [message["content"] for message in conversation.messages if message["role"] == "assistant"]
    assert "Paris" in answers[0]
    assert turns == sorted(turns)
    for (before, _), (tokens, cached) in zip(target.opened, target.opened[1:], strict=False):
        assert cached > before - 16  # whole blocks of the turn before, its answer among them
        assert tokens - cached <= 16 + 20
    whole = tokenizer.encode_rendered(render(tokenizer.chat, conversation.messages[:-1]))
    assert turns[-1] == len(whole)  # what was said is what the template makes of it


@pytest.mark.parametrize("policy", ["cloud", "sync:gamma=4"])
async def test_log_probabilities_are_those_of_the_models_own_softmax(
    policy: str, model: LoadedModel, truth: Oracle
) -> None:
    async with edge_of(model) as edge:
        options = {"policy": policy, "temperature": 0.8, "seed": 5, "max_new_tokens": LENGTH, "end_marks": False}
        generation = edge.generate(PROMPTS[7] * 3, logprobs=2, **options)  # type: ignore[arg-type]
        scored = [one for piece in [piece async for piece in generation] for one in piece.logprobs]
        prompt, tokens = encoded(edge, PROMPTS[7] * 3), generation.report.tokens
    with torch.inference_mode():
        logits = truth.model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    logarithms = logits.log_softmax(-1)
    for row, token, ((said, logprob), *best) in zip(logarithms, tokens, scored, strict=True):
        assert said == token
        assert logprob == pytest.approx(float(row[token]), abs=1e-3)
        assert [value for _, value in best] == pytest.approx(row.topk(2).values.tolist(), abs=1e-3)
        assert best[0][0] == int(row.argmax()) or float(row.topk(2).values.diff().abs()) < 1e-3
