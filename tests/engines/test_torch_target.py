"""The torch target's passes: texts, trees, exits, cancelling."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engines.conftest import TinyModel
from engines.gate import Gate, gate_before
from engines.tiny_models import VOCABULARY
from engines.torch_reference import GREEDY, WARM, WINDOWS, PlainHeads, decode, ignore, next_token, prompt_of, text_alone
from foredraft.core.ports import Pass, Reading
from foredraft.engines import target_pass
from foredraft.engines.torch_model import LoadedModel, load_model
from foredraft.engines.torch_target import TorchSeat, TorchTarget
from foredraft.errors import RefusedError


@pytest.mark.parametrize("family", WINDOWS)
async def test_greedy_text_equals_that_of_transformers_generate(tiny_model: TinyModel, family: str) -> None:
    name, changes = WINDOWS[family]
    model = load_model(tiny_model(name, **changes))
    prompt = prompt_of(20)
    expected = model.model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, 20),
        max_new_tokens=24,
        do_sample=False,
        eos_token_id=None,
    )[0, 20:].tolist()
    target = TorchTarget(model, prefill_chunk=8)
    seat = await target.seat(prompt, GREEDY)
    assert await decode(seat, prompt, 24) == expected
    assert len(set(expected)) > 5  # a text that only repeats would prove little
    await target.close()


async def test_sampled_text_is_that_of_one_whole_run_per_token(target: TorchTarget) -> None:
    prompt = prompt_of(9)
    seat = await target.seat(prompt, WARM)
    assert await decode(seat, prompt, 16) == text_alone(target.model, prompt, 16, WARM)


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Tokens and parents of a random tree."""
    size = draw(st.integers(0, 12))
    parents = [draw(st.integers(-1, node - 1)) for node in range(size)]
    tokens = draw(st.lists(st.integers(0, VOCABULARY - 1), min_size=size, max_size=size))
    return tokens, parents


def path_to(node: int, parents: Sequence[int]) -> list[int]:
    path: list[int] = []
    while node >= 0:
        path.insert(0, node)
        node = parents[node]
    return path


def cached_rows(target: TorchTarget, seat: TorchSeat) -> Tensor:
    """The rows that the target's memory holds for the seat's text, pending moves done: ``[planes, rows, ...]``."""
    with torch.inference_mode():
        target.memory.settle()
        rows = [row for run in seat._text.runs(seat.cached) for row in range(*run)]
        return torch.stack([plane[0, :, rows] for plane in target.memory.planes])


@pytest.mark.parametrize("family", WINDOWS)
@settings(max_examples=settings().max_examples // 3)
@given(tree=trees(), trunk=st.integers(1, 6), pick=st.randoms(use_true_random=False))
def test_a_tree_in_one_pass_equals_one_run_per_path(
    tiny_model: TinyModel, family: str, tree: tuple[list[int], list[int]], trunk: int, pick: Any
) -> None:
    name, changes = WINDOWS[family]
    model = loaded_once(tiny_model(name, **changes))
    tokens, parents = tree
    prompt = prompt_of(12, seed=trunk)

    async def one_pass() -> None:
        target = TorchTarget(model, PlainHeads(model))
        seat = await target.seat(prompt, WARM)
        await seat.prefill(prompt[:-trunk])
        exits: list[Reading] = []
        batch = Pass(tuple(prompt[-trunk:]), tuple(tokens), tuple(parents), (3,))
        verdict = await seat.verify(batch, exits.append)
        for row in range(len(tokens) + 1):
            text = prompt + [tokens[node] for node in path_to(row - 1, parents)]
            assert verdict.reading.tokens[row] == next_token(model, text, WARM)
            assert exits[0].tokens[row] == next_token(model, text, WARM, layer=3)
        kept = path_to(pick.choice([-1, *range(len(tokens))]), parents)
        seat.keep(kept)
        text = prompt + [tokens[node] for node in kept]
        assert seat.cached == len(text)
        other = TorchTarget(model)
        fresh = await other.seat(text, WARM)
        await fresh.prefill(text)
        torch.testing.assert_close(cached_rows(target, seat), cached_rows(other, fresh), atol=1e-4, rtol=1e-4)
        assert await decode(seat, [*text, 1], 2) == text_alone(model, [*text, 1], 2, WARM)
        await target.close()
        await other.close()

    asyncio.run(one_pass())


_loaded: dict[Path, LoadedModel] = {}


def loaded_once(folder: Path) -> LoadedModel:
    """The model in ``folder``, loaded once for all examples."""
    if folder not in _loaded:
        _loaded[folder] = load_model(folder)
    return _loaded[folder]


@pytest.fixture
def gate(model: LoadedModel) -> Iterator[Gate]:
    with gate_before(model) as gate:
        yield gate


async def test_exit_is_heard_before_the_later_layers_run(target: TorchTarget, gate: Gate) -> None:
    gate.closed_from = 3
    seat = await target.seat([1, 2, 3], GREEDY)
    heard: list[Reading] = []

    def on_exit(reading: Reading) -> None:
        heard.append(reading)
        if len(heard) == 2:
            gate.opened.set()  # without this the pass would never end

    verdict = await seat.verify(Pass((1, 2, 3), (4, 5), (-1, 0), (1, 3)), on_exit)
    assert [reading.layer for reading in heard] == [1, 3]
    assert all(len(reading.tokens) == len(reading.confidence) == 3 for reading in heard)
    assert verdict.reading.layer == 4
    assert verdict.reading.confidence == (1.0, 1.0, 1.0)


async def test_a_pass_with_exits_runs_every_layer_once(target: TorchTarget, gate: Gate) -> None:
    seat = await target.seat([1, 2], GREEDY)
    await seat.verify(Pass((1, 2), (3,), (-1,), (3, 1)), ignore)
    assert gate.layers == [0, 1, 2, 3]


async def test_exits_do_not_change_the_verdict(target: TorchTarget) -> None:
    first, second = await target.seat([1, 2], WARM), await target.seat([1, 2], WARM)
    batch = Pass((1, 2), (3, 4), (-1, -1))
    plain = await first.verify(batch, ignore)
    with_exits = await second.verify(Pass((1, 2), (3, 4), (-1, -1), (1, 3)), ignore)
    assert with_exits.reading == plain.reading


async def test_cancelled_pass_stops_at_the_next_segment_and_leaves_the_cache_as_it_was(
    target: TorchTarget, gate: Gate
) -> None:
    prompt = prompt_of(6)
    seat = await target.seat(prompt, WARM)
    await seat.prefill(prompt[:4])
    gate.layers.clear()
    gate.closed_from = 2  # inside the second of three segments
    heard: list[Reading] = []
    running = asyncio.create_task(seat.verify(Pass(tuple(prompt[4:]), (7, 8), (-1, 0), (1, 3)), heard.append))
    await gate.until_reached()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert seat.cached == 4
    gate.opened.set()
    gate.closed_from = 1000
    assert await decode(seat, prompt, 6) == text_alone(target.model, prompt, 6, WARM)
    assert gate.layers[:3] == [0, 1, 2]  # layer 3 of the cancelled pass never ran
    assert gate.layers[3:7] == [0, 1, 2, 3]
    assert [reading.layer for reading in heard] == [1]


async def test_pass_cancelled_while_it_waits_never_runs(target: TorchTarget, gate: Gate) -> None:
    gate.closed_from = 0
    busy, waiting = await target.seat([1], GREEDY), await target.seat([2], GREEDY)
    first = asyncio.create_task(busy.verify(Pass((1,)), ignore))
    await gate.until_reached()
    second = asyncio.create_task(waiting.verify(Pass((2,)), ignore))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.opened.set()
    await first
    await target.close()
    assert gate.layers == [0, 1, 2, 3]


async def test_a_pass_that_finds_no_memory_can_be_tried_again_and_leaves_the_cache_as_it_was(
    target: TorchTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = prompt_of(5)
    seat = await target.seat(prompt, GREEDY)
    await seat.prefill(prompt[:3])
    with monkeypatch.context() as patch:

        def fail(*args: Any) -> Tensor:
            raise torch.OutOfMemoryError("out of memory")

        patch.setattr(target_pass, "sample", fail)
        with pytest.raises(RefusedError, match="out of memory") as refused:
            await seat.verify(Pass(tuple(prompt[3:]), (9,), (-1,)), ignore)
        assert (refused.value.code, refused.value.retry_after_s) == ("busy", 1.0)
    assert seat.cached == 3
    assert await decode(seat, prompt, 5) == text_alone(target.model, prompt, 5, GREEDY)


async def test_half_precision_target_decodes(tiny_model: TinyModel) -> None:
    target = TorchTarget(load_model(tiny_model(), "bfloat16"))
    prompt = prompt_of(8)
    assert len(await decode(await target.seat(prompt, WARM), prompt, 5)) == 5
    await target.close()


def test_text_and_exits_are_the_same_on_each_loop(model: LoadedModel, run_on_each_loop: Any) -> None:
    prompt = prompt_of(8)

    async def session() -> tuple[list[int], list[int]]:
        target = TorchTarget(model, PlainHeads(model))
        seat = await target.seat(prompt, WARM)
        heard: list[int] = []
        verdict = await seat.verify(Pass(tuple(prompt), exits=(1, 3)), lambda reading: heard.append(reading.layer))
        assert heard == [1, 3]
        assert verdict.pass_s >= 0.0
        assert verdict.queue_s >= 0.0
        text = [*prompt, verdict.reading.tokens[0]]
        more = await decode(seat, text, 4)
        seat.close()
        await target.close()
        return heard, [text[-1], *more]

    assert run_on_each_loop(session())[1] == text_alone(model, prompt, 5, WARM)
