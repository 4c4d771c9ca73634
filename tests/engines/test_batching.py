"""What runs together: the decision by itself, and the target that follows it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.gate import Gate, gate_before
from engines.torch_reference import GREEDY, WARM, decode, ignore, prompt_of, text_alone
from foredraft.engines.batching import SHORT_ROWS, Share, Waiting, choose
from foredraft.engines.torch_model import LoadedModel
from foredraft.engines.torch_target import TorchTarget
from foredraft.errors import RefusedError
from foredraft.protocol.ports import Pass, Prediction

CALLS = st.lists(st.builds(Waiting, st.integers(1, 900), st.integers(0, 33), st.booleans()), min_size=1, max_size=12)


@given(CALLS, st.integers(1, 512))
def test_all_that_is_short_runs_at_once_and_of_the_long_at_most_a_chunk(calls: list[Waiting], chunk: int) -> None:
    shares = choose(calls, chunk)
    short = {number for number, call in enumerate(calls) if call.trunk <= min(SHORT_ROWS, chunk)}
    assert short <= {share.call for share in shares if share.whole}
    assert sum(share.trunk for share in shares if share.call not in short) <= chunk


@given(CALLS, st.integers(1, 512))
def test_every_call_comes_to_its_end_and_the_first_one_first_among_the_long(calls: list[Waiting], chunk: int) -> None:
    left = dict(enumerate(calls))
    ended: list[int] = []
    for _ in range(sum(call.trunk for call in calls) + len(calls)):
        order = list(left)
        for share in choose([left[number] for number in order], chunk):
            number = order[share.call]
            assert share.trunk > 0
            assert share.whole == (share.trunk == left[number].trunk)
            left[number] = left[number]._replace(trunk=left[number].trunk - share.trunk)
        for number in [number for number, call in left.items() if not call.trunk]:
            ended.append(number)
            del left[number]
        if not left:
            break
    assert not left
    long = [number for number in ended if calls[number].trunk > min(SHORT_ROWS, chunk) and not calls[number].tip]
    assert long == sorted(long)


def test_a_tip_waits_for_its_tree() -> None:
    assert choose([Waiting(100, 8)], 100) == [Share(0, 99, whole=False)]
    assert choose([Waiting(100, 8)], 108) == [Share(0, 100, whole=True)]
    assert choose([Waiting(100, 0, tip=False)], 100) == [Share(0, 100, whole=True)]


@pytest.fixture
def gate(model: LoadedModel) -> Iterator[Gate]:
    with gate_before(model) as gate:
        yield gate


async def test_what_waits_while_the_device_is_busy_runs_as_one_forward(target: TorchTarget, gate: Gate) -> None:
    gate.closed_from = 0
    prompts = [prompt_of(4, seed=seed) for seed in range(4)]
    slots = [await target.slot(prompt, GREEDY) for prompt in prompts]
    first = asyncio.create_task(slots[0].verify(Pass(tuple(prompts[0])), ignore))
    await gate.until_reached()
    others = [
        asyncio.create_task(slot.verify(Pass(tuple(prompt), (7, 8), (-1, -1)), ignore))
        for slot, prompt in zip(slots[1:], prompts[1:], strict=True)
    ]
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(first, *others)
    assert gate.rows == [4, 3 * 6]


async def test_sessions_that_are_ready_together_share_each_forward(target: TorchTarget, gate: Gate) -> None:
    prompts = [prompt_of(6, seed=seed) for seed in range(5)]
    slots = [await target.slot(prompt, WARM) for prompt in prompts]
    texts = await asyncio.gather(*(decode(slot, prompt, 8) for slot, prompt in zip(slots, prompts, strict=True)))
    assert gate.rows == [25] + [5] * 8
    assert texts == [text_alone(target.model, prompt, 8, WARM) for prompt in prompts]


async def test_a_long_prompt_delays_others_by_no_more_than_a_chunk_at_a_time(target: TorchTarget, gate: Gate) -> None:
    long, short = prompt_of(100), prompt_of(3, seed=1)
    slots = await target.slot(long, GREEDY), await target.slot(short, GREEDY)
    filling = asyncio.create_task(slots[0].prefill(long))
    text = await decode(slots[1], short, 4)
    assert not filling.done()
    assert max(gate.rows) <= target.card.prefill_chunk + len(short)
    await filling
    assert text == text_alone(target.model, short, 4, GREEDY)


async def test_the_chunk_of_a_forward_goes_to_the_prompt_that_is_wanted_first(target: TorchTarget, gate: Gate) -> None:
    prompts = [prompt_of(100, seed=seed) for seed in range(3)]
    slots = [await target.slot(prompt, GREEDY) for prompt in prompts]
    loop, order = asyncio.get_running_loop(), list[int]()
    gate.closed_from = 0
    last = await target.slot([1], GREEDY)
    busy = asyncio.create_task(last.verify(Pass((1,)), ignore))
    await gate.until_reached()
    slots[2].wanted_by(loop.time() + 0.5)

    async def fill(number: int) -> None:
        await slots[number].prefill(prompts[number])
        order.append(number)

    filling = [asyncio.create_task(fill(number)) for number in range(3)]
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(busy, *filling)
    assert order == [2, 0, 1]


async def test_exits_of_all_sessions_speak_in_the_one_forward(target: TorchTarget, gate: Gate) -> None:
    heard: list[list[Prediction]] = [[], [], []]
    slots = [await target.slot([1, 2], WARM if number else GREEDY) for number in range(3)]
    calls = [Pass((1, 2), (3, 4), (-1, 0), (1, 3)), Pass((1, 2), (5,), (-1,), (3,)), Pass((1, 2))]
    await asyncio.gather(
        *(slot.verify(call, ears.append) for slot, call, ears in zip(slots, calls, heard, strict=True))
    )
    assert gate.rows == [4 + 3 + 2]
    assert [[prediction.layer for prediction in ears] for ears in heard] == [[1, 3], [3], []]
    alone = await target.slot([1, 2], WARM)
    again: list[Prediction] = []
    await alone.verify(calls[1], again.append)
    assert again[0].tokens == heard[1][0].tokens


async def test_a_session_that_is_cancelled_costs_the_others_nothing(target: TorchTarget, gate: Gate) -> None:
    gate.closed_from = 2
    prompts = [prompt_of(5, seed=seed) for seed in range(3)]
    slots = [await target.slot(prompt, WARM) for prompt in prompts]
    running = [
        asyncio.create_task(slot.verify(Pass(tuple(prompt)), ignore))
        for slot, prompt in zip(slots, prompts, strict=True)
    ]
    await gate.until_reached()
    running[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await running[1]
    slots[1].close()
    gate.opened.set()
    first, last = await running[0], await running[2]
    assert gate.rows == [15]
    assert [first.prediction.tokens[0]] == text_alone(target.model, prompts[0], 1, WARM)
    assert [last.prediction.tokens[0]] == text_alone(target.model, prompts[2], 1, WARM)


async def test_a_forward_that_fails_fails_only_those_in_it(
    target: TorchTarget, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = [await target.slot([1, 2, 3], GREEDY) for _ in range(3)]
    run = type(target.model).run

    def fails(model: LoadedModel, rows: Any) -> Any:
        if rows.count > 3:
            raise MemoryError("no room for it")
        return run(model, rows)

    monkeypatch.setattr(type(target.model), "run", fails)
    both = await asyncio.gather(*(slot.verify(Pass((1, 2, 3)), ignore) for slot in slots[:2]), return_exceptions=True)
    for error in both:
        assert isinstance(error, RefusedError)
        assert error.retry_after_s == 1.0
    assert (await slots[2].verify(Pass((1, 2, 3)), ignore)).prediction.layer == 4
    assert (await slots[0].verify(Pass((1, 2, 3)), ignore)).prediction.layer == 4
