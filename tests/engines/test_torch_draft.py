"""The torch drafter: guesses from a tree of nodes equal those of one run per path, whatever happened before."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import histories
from engines.conftest import TinyModel
from engines.gate import Gate, gate_before
from engines.histories import any_history
from engines.tiny_models import FAMILIES, VOCABULARY
from foredraft.engines.noise import perturb
from foredraft.engines.torch_draft import TorchDrafter
from foredraft.engines.torch_model import LoadedModel, load_model, run_layers
from foredraft.errors import ModelError
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree

GREEDY = Sampling()
WITHIN = 1e-4
agree = partial(histories.agree, within=WITHIN)
WARM = Sampling(temperature=0.8, top_k=60, top_p=0.95, seed=5)
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in FAMILIES},
    "mistral window": ("mistral", {"sliding_window": 7}),
    "qwen2 window": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}),
}


def expected(model: LoadedModel, text: Sequence[int], width: int, sampling: Sampling) -> list[Guess]:
    """The guesses of one run over the whole text."""
    hidden = run_layers(model, torch.tensor([text]), {4})[4][0, -1:]
    scores = perturb(model.logits(hidden), torch.tensor([len(text)]), sampling)[0]
    chances = scores.softmax(-1)
    best = sorted(range(VOCABULARY), key=lambda token: -float(scores[token]))[:width]
    return [Guess(token, float(chances[token])) for token in best if chances[token] > 0]


@pytest.fixture(scope="module", params=SHAPES)
def any_model(request: pytest.FixtureRequest, tiny_model: TinyModel) -> LoadedModel:
    family, changes = SHAPES[request.param]
    return load_model(tiny_model(family, **changes))


@pytest.fixture(scope="module")
def model(tiny_model: TinyModel) -> LoadedModel:
    return load_model(tiny_model())


@pytest_asyncio.fixture(loop_scope="function")
async def drafter(model: LoadedModel) -> AsyncIterator[TorchDrafter]:
    drafter = TorchDrafter(model, prefill_chunk=16)
    yield drafter
    await drafter.close()


@settings(max_examples=settings().max_examples // 6)
@given(luck=st.randoms(use_true_random=False), warm=st.booleans(), length=st.integers(1, 25))
def test_guesses_equal_those_of_one_run_per_path_after_any_history(
    any_model: LoadedModel, luck: random.Random, warm: bool, length: int
) -> None:
    """Nodes asked in any order, again, with gaps above them; commits that hit, miss, and go past the tree."""
    sampling = WARM if warm else GREEDY

    async def history() -> None:
        drafter = TorchDrafter(any_model, prefill_chunk=8)
        wanted = partial(expected, any_model, width=3, sampling=sampling)
        await any_history(drafter, wanted, luck, sampling, vocabulary=VOCABULARY, length=length, turns=8, within=WITHIN)
        await drafter.close()

    asyncio.run(history())


@pytest.fixture
def gate(model: LoadedModel) -> Iterator[Gate]:
    with gate_before(model) as gate:
        yield gate


@pytest.fixture
def fed(gate: Gate) -> list[int]:
    """How many rows each forward of the drafter ran."""
    return gate.rows


async def test_several_nodes_cost_one_forward_of_their_rows_alone(drafter: TorchDrafter, fed: list[int]) -> None:
    tree = DraftTree([1, 2, 3])
    await drafter.begin(tree.tokens, GREEDY)
    first = (await drafter.draft([tree.root], 4))[0]
    nodes = [tree.add(tree.root, guess.token) for guess in first]
    await drafter.draft(nodes, 2)
    assert len({guess.token for guess in first}) == 4
    assert fed == [3, 4]


async def test_promoted_rows_are_not_run_again(drafter: TorchDrafter, fed: list[int]) -> None:
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
    agree(found[0], expected(drafter.model, [1, 2, 3, 7, 8, 9, 10], 2, GREEDY))
    assert fed == [6, 1]


async def test_committed_tokens_that_were_never_drafted_come_along(drafter: TorchDrafter, fed: list[int]) -> None:
    tree = DraftTree([1, 2, 3])
    await drafter.begin(tree.tokens, GREEDY)
    await drafter.draft([tree.root], 1)
    tree.advance([50, 60])
    drafter.advance([50, 60])
    found = await drafter.draft([tree.root], 2)
    agree(found[0], expected(drafter.model, [1, 2, 3, 50, 60], 2, GREEDY))
    assert fed == [3, 2]


async def test_long_prompt_runs_in_chunks(drafter: TorchDrafter, fed: list[int]) -> None:
    tree = DraftTree(list(range(50)))
    await drafter.begin(tree.tokens, GREEDY)
    found = await drafter.draft([tree.root], 2)
    agree(found[0], expected(drafter.model, tree.tokens, 2, GREEDY))
    assert fed == [16, 16, 16, 2]


async def test_text_that_begins_like_the_last_one_reuses_its_rows(drafter: TorchDrafter, fed: list[int]) -> None:
    await drafter.begin([1, 2, 3, 4, 5], GREEDY)
    await drafter.draft([DraftTree([1, 2, 3, 4, 5]).root], 1)
    tree = DraftTree([1, 2, 3, 9, 9])
    await drafter.begin(tree.tokens, WARM)
    found = await drafter.draft([tree.root], 2)
    agree(found[0], expected(drafter.model, tree.tokens, 2, WARM))
    assert fed == [5, 2]


async def test_dead_nodes_and_nodes_beyond_the_context_come_back_empty(drafter: TorchDrafter) -> None:
    tree = DraftTree([1] * 256)
    await drafter.begin(tree.tokens, GREEDY)
    beyond = tree.add(tree.root, 5)
    dead = DraftTree([1]).root
    dead.alive = False
    root, past, nothing = await drafter.draft([tree.root, beyond, dead], 2)
    assert len(root) == 2
    assert past == nothing == []


async def test_nodes_of_another_text_come_back_empty(drafter: TorchDrafter) -> None:
    await drafter.begin([1, 2, 3], GREEDY)
    assert await drafter.draft([DraftTree([1, 2, 4]).root], 2) == [[]]


async def test_advance_during_a_step_applies_to_the_next_one(drafter: TorchDrafter, gate: Gate) -> None:
    gate.closed_from = 0
    tree = DraftTree([1, 2, 3])
    await drafter.begin(tree.tokens, GREEDY)
    step = asyncio.create_task(drafter.draft([tree.root], 2))
    await asyncio.sleep(0)
    drafter.advance([9])  # never waits, though the step is in progress
    gate.opened.set()
    agree((await step)[0], expected(drafter.model, [1, 2, 3], 2, GREEDY))
    tree.advance([9])
    agree((await drafter.draft([tree.root], 2))[0], expected(drafter.model, [1, 2, 3, 9], 2, GREEDY))


async def test_a_step_that_was_given_up_leaves_the_cache_sound(drafter: TorchDrafter) -> None:
    tree = DraftTree(list(range(40)))
    await drafter.begin(tree.tokens, GREEDY)
    step = asyncio.create_task(drafter.draft([tree.root], 2))
    await asyncio.sleep(0)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    tree.advance([3, 4])
    drafter.advance([3, 4])
    agree((await drafter.draft([tree.root], 2))[0], expected(drafter.model, tree.tokens, 2, GREEDY))


async def test_tokens_that_the_filters_drop_are_never_guessed(drafter: TorchDrafter) -> None:
    sampling = Sampling(temperature=1.0, top_k=2)
    tree = DraftTree([1, 2, 3])
    await drafter.begin(tree.tokens, sampling)
    guesses = (await drafter.draft([tree.root], 5))[0]
    assert len(guesses) == 2
    assert sum(guess.probability for guess in guesses) == pytest.approx(1.0)


async def test_foreign_token_ids_are_refused_by_name(drafter: TorchDrafter) -> None:
    with pytest.raises(ModelError, match=r"258.*tokenizer"):
        await drafter.begin([1, VOCABULARY], GREEDY)
    tree = DraftTree([1])
    await drafter.begin(tree.tokens, GREEDY)
    with pytest.raises(ModelError, match="999"):
        await drafter.draft([tree.add(tree.root, 999)], 1)
    drafter.advance([777])
    with pytest.raises(ModelError, match="777"):
        await drafter.draft([tree.root], 1)


async def test_too_many_nodes_and_an_empty_text_are_refused(model: LoadedModel) -> None:
    drafter = TorchDrafter(model, max_nodes_per_step=2)
    tree = DraftTree([1])
    with pytest.raises(ModelError, match="no text has begun"):
        await drafter.draft([tree.root], 1)
    with pytest.raises(ModelError, match="empty"):
        await drafter.begin([], GREEDY)
    await drafter.begin([1], GREEDY)
    with pytest.raises(ModelError, match=r"3 nodes.*2"):
        await drafter.draft([tree.add(tree.root, token) for token in range(3)], 1)
    await drafter.close()


def test_guesses_are_the_same_on_each_loop(model: LoadedModel, run_on_each_loop: Any) -> None:
    async def session() -> list[list[Guess]]:
        drafter = TorchDrafter(model, prefill_chunk=2)
        tree = DraftTree([1, 2, 3, 4, 5, 6])
        await drafter.begin(tree.tokens, WARM)
        guesses = await drafter.draft([tree.root, tree.add(tree.root, 4)], 3)
        await drafter.close()
        return guesses

    guesses = run_on_each_loop(session())
    agree(guesses[0], expected(model, [1, 2, 3, 4, 5, 6], 3, WARM))
    agree(guesses[1], expected(model, [1, 2, 3, 4, 5, 6, 4], 3, WARM))
