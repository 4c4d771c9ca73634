"""The drafter on llama.cpp: guesses from a tree of nodes equal those of one run per path, whatever happened before."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import histories
from engines.histories import any_history, text_of
from engines.tiny_gguf import CONTEXT, VOCABULARY, needs_llama, tiny_gguf

needs_llama()

from foredraft.engines.branches import TEXT, Row  # noqa: E402
from foredraft.engines.llama_draft import LlamaDrafter  # noqa: E402
from foredraft.engines.llama_model import LlamaContext, LlamaModel  # noqa: E402
from foredraft.engines.llama_options import LlamaOptions  # noqa: E402
from foredraft.engines.numpy_guesses import best  # noqa: E402
from foredraft.errors import ModelError  # noqa: E402
from foredraft.protocol.ports import Guess  # noqa: E402
from foredraft.protocol.sampling import Sampling  # noqa: E402
from foredraft.protocol.tree import DraftTree  # noqa: E402

GREEDY = Sampling()
WITHIN = 1e-3
agree = partial(histories.agree, within=WITHIN)
WARM = Sampling(temperature=0.8, top_k=60, top_p=0.95, seed=5)
OPTIONS = LlamaOptions(context=CONTEXT, threads=1, batch=16, branches=6, cache_type="f32", flash_attention=0)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def model(file: Path) -> LlamaModel:
    return LlamaModel(file, OPTIONS)


@pytest_asyncio.fixture(loop_scope="function")
async def drafter(model: LlamaModel) -> AsyncIterator[LlamaDrafter]:
    drafter = LlamaDrafter(model)
    yield drafter
    await drafter.close()


def expected(model: LlamaModel, text: Sequence[int], width: int, sampling: Sampling) -> list[Guess]:
    """The guesses of a context of its own, one token after another."""
    context = LlamaContext(model)
    for at, token in enumerate(text):
        logits = context.decode([Row(token, at, [TEXT])], [0]).copy()
    context.close()
    return best(logits, [len(text)], width, sampling)[0]


@settings(max_examples=settings().max_examples // 4)
@given(luck=st.randoms(use_true_random=False), warm=st.booleans(), length=st.integers(1, 40))
def test_guesses_equal_those_of_one_run_per_path_after_any_history(
    model: LlamaModel, luck: random.Random, warm: bool, length: int
) -> None:
    """Nodes asked in any order, again, with gaps above them; commits that hit, miss, and go past the tree."""
    sampling = WARM if warm else GREEDY

    async def history() -> None:
        drafter = LlamaDrafter(model)
        wanted = partial(expected, model, width=3, sampling=sampling)
        await any_history(drafter, wanted, luck, sampling, vocabulary=VOCABULARY, length=length, turns=6, within=WITHIN)
        await drafter.close()

    asyncio.run(history())


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each run of the drafter had."""
    rows: list[int] = []
    decode = LlamaContext.decode

    def counted(self: LlamaContext, given: Sequence[Row], asked: Sequence[int]) -> Any:
        rows.append(len(given))
        return decode(self, given, asked)

    monkeypatch.setattr(LlamaContext, "decode", counted)
    return rows


async def test_promoted_rows_are_not_run_again(drafter: LlamaDrafter, fed: list[int]) -> None:
    tree = DraftTree([1, 2, 3])
    await drafter.begin(tree.tokens, GREEDY)
    node = tree.root
    for token in (7, 8, 9):
        node = tree.add(node, token)
    await drafter.draft([node], 1)
    side = tree.add(node, 10)
    tree.advance([7, 8])
    drafter.advance([7, 8])
    found = await drafter.draft([side], 2)
    assert fed == [6, 1]
    agree(found[0], expected(drafter.model, [1, 2, 3, 7, 8, 9, 10], 2, GREEDY))


async def test_several_nodes_cost_one_decode_of_their_rows_alone(drafter: LlamaDrafter, fed: list[int]) -> None:
    tree = DraftTree([1, 2, 3])
    await drafter.begin(tree.tokens, GREEDY)
    first = (await drafter.draft([tree.root], 4))[0]
    await drafter.draft([tree.add(tree.root, guess.token) for guess in first], 2)
    assert fed == [3, 4]


async def test_long_prompt_runs_in_chunks_and_a_deep_gap_in_several_batches(
    drafter: LlamaDrafter, fed: list[int]
) -> None:
    tree = DraftTree(list(range(40)))
    await drafter.begin(tree.tokens, GREEDY)
    await drafter.draft([tree.root], 2)
    assert fed == [16, 16, 8]
    node = tree.root
    for token in range(40):
        node = tree.add(node, token)
    found = await drafter.draft([tree.add(tree.root, 3), node], 2)
    agree(found[0], expected(drafter.model, [*tree.tokens, 3], 2, GREEDY))
    agree(found[1], expected(drafter.model, text_of(tree, node), 2, GREEDY))


async def test_text_that_begins_like_the_last_one_reuses_its_rows(drafter: LlamaDrafter, fed: list[int]) -> None:
    await drafter.begin([1, 2, 3, 4, 5], GREEDY)
    await drafter.draft([DraftTree([1, 2, 3, 4, 5]).root], 1)
    tree = DraftTree([1, 2, 3, 9, 9])
    await drafter.begin(tree.tokens, WARM)
    found = await drafter.draft([tree.root], 2)
    assert fed == [5, 2]
    agree(found[0], expected(drafter.model, tree.tokens, 2, WARM))


async def test_dead_nodes_and_nodes_beyond_the_context_come_back_empty(drafter: LlamaDrafter) -> None:
    tree = DraftTree([1] * CONTEXT)
    await drafter.begin(tree.tokens, GREEDY)
    beyond = tree.add(tree.root, 5)
    dead = DraftTree([1]).root
    dead.alive = False
    root, past, nothing = await drafter.draft([tree.root, beyond, dead], 2)
    assert len(root) == 2
    assert past == nothing == []


async def test_a_text_that_the_context_does_not_hold_is_refused_with_the_way_out(drafter: LlamaDrafter) -> None:
    with pytest.raises(ModelError, match=r"257 tokens.*context of 256.*--draft-option context="):
        await drafter.begin([1] * (CONTEXT + 1), GREEDY)


async def test_foreign_token_ids_and_too_many_branches_are_refused(drafter: LlamaDrafter) -> None:
    with pytest.raises(ModelError, match=r"258.*tokenizer"):
        await drafter.begin([1, VOCABULARY], GREEDY)
    tree = DraftTree([1])
    await drafter.begin(tree.tokens, GREEDY)
    with pytest.raises(ModelError, match=r"7 nodes.*at most 6"):
        await drafter.draft([tree.add(tree.root, token) for token in range(7)], 1)


async def test_a_decode_that_fails_is_a_model_error_and_the_next_step_is_sound(
    drafter: LlamaDrafter, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = DraftTree([1, 2, 3])
    await drafter.begin(tree.tokens, GREEDY)
    await drafter.draft([tree.root], 1)
    with monkeypatch.context() as patch:
        patch.setattr("foredraft.engines.llama_model.lib.llama_decode", lambda *_: 1)
        with pytest.raises(ModelError, match=r"could not run 1 tokens.*code 1"):
            await drafter.draft([tree.add(tree.root, 5)], 1)
    found = await drafter.draft([tree.add(tree.root, 5)], 2)
    agree(found[0], expected(drafter.model, [1, 2, 3, 5], 2, GREEDY))


async def test_a_step_that_was_given_up_leaves_the_cache_sound_and_the_loop_stays_free(
    drafter: LlamaDrafter, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, inside = threading.Event(), threading.Event()
    decode = LlamaContext.decode

    def gated(self: LlamaContext, rows: Sequence[Row], asked: Sequence[int]) -> Any:
        inside.set()
        assert opened.wait(30)
        return decode(self, rows, asked)

    monkeypatch.setattr(LlamaContext, "decode", gated)
    tree = DraftTree([1, 2, 3])
    await drafter.begin(tree.tokens, GREEDY)
    step = asyncio.create_task(drafter.draft([tree.root], 2))
    await asyncio.to_thread(inside.wait)  # the loop turns while llama.cpp works
    step.cancel()
    tree.advance([9])
    drafter.advance([9])  # never waits
    opened.set()
    found = await drafter.draft([tree.root], 2)
    agree(found[0], expected(drafter.model, [1, 2, 3, 9], 2, GREEDY))


async def test_tokens_that_the_filters_drop_are_never_guessed(drafter: LlamaDrafter) -> None:
    tree = DraftTree([1, 2, 3])
    await drafter.begin(tree.tokens, Sampling(temperature=1.0, top_k=2))
    guesses = (await drafter.draft([tree.root], 5))[0]
    assert len(guesses) == 2
    assert sum(guess.probability for guess in guesses) == pytest.approx(1.0)


def test_guesses_are_the_same_on_each_loop(model: LlamaModel, run_on_each_loop: Any) -> None:
    async def session() -> list[list[Guess]]:
        drafter = LlamaDrafter(model)
        tree = DraftTree([1, 2, 3, 4, 5, 6])
        await drafter.begin(tree.tokens, WARM)
        guesses = await drafter.draft([tree.root, tree.add(tree.root, 4)], 3)
        await drafter.close()
        return guesses

    guesses = run_on_each_loop(session())
    agree(guesses[0], expected(model, [1, 2, 3, 4, 5, 6], 3, WARM))
    agree(guesses[1], expected(model, [1, 2, 3, 4, 5, 6, 4], 3, WARM))
