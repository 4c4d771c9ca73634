"""The torch target's slots: turns, caches that are kept and reused, budgets, refusals."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from engines.tiny_models import VOCABULARY
from engines.torch_reference import GREEDY, WARM, decode, ignore, prompt_of, text_alone
from foredraft.engines.blocks import BLOCK_ROWS, GROWTH_ROWS
from foredraft.engines.torch_model import LoadedModel
from foredraft.engines.torch_target import TorchTarget
from foredraft.errors import RefusedError
from foredraft.protocol.ports import Pass


async def test_interleaved_slots_write_the_texts_that_they_write_alone(target: TorchTarget) -> None:
    prompts = [prompt_of(5 + 3 * index, seed=index) for index in range(5)]
    slots = [await target.slot(prompt, WARM) for prompt in prompts]
    texts = await asyncio.gather(*(decode(slot, prompt, 8) for slot, prompt in zip(slots, prompts, strict=True)))
    assert list(texts) == [text_alone(target.model, prompt, 8, WARM) for prompt in prompts]


async def test_slots_take_turns(target: TorchTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    async def passes(name: str) -> None:
        slot = await target.slot([1], GREEDY)
        for token in range(4):
            await slot.verify(Pass((token,)), ignore)
            order.append(name)

    await asyncio.gather(passes("a"), passes("b"), passes("c"))
    assert all(set(order[turn : turn + 3]) == {"a", "b", "c"} for turn in range(0, 12, 3))


async def test_resumed_text_reuses_the_full_blocks_of_its_beginning(target: TorchTarget) -> None:
    prompt = prompt_of(30)
    slot = await target.slot(prompt, WARM)
    first = await decode(slot, prompt, 6)
    slot.close()
    longer = [*prompt, *first, *prompt_of(4, seed=9)]
    resumed = await target.slot(longer, WARM)
    assert resumed.cached == 35 // BLOCK_ROWS * BLOCK_ROWS  # the last of the 36 tokens was never run
    assert await decode(resumed, longer, 6) == text_alone(target.model, longer, 6, WARM)


async def test_same_text_again_leaves_its_tip_to_run(target: TorchTarget) -> None:
    prompt = prompt_of(2 * BLOCK_ROWS)
    slot = await target.slot(prompt, WARM)
    first = await decode(slot, prompt, 3)
    slot.close()
    again = await target.slot(prompt, WARM)
    assert again.cached == BLOCK_ROWS
    assert await decode(again, prompt, 3) == first


async def test_cache_kept_with_moves_still_to_do_is_reused_correctly(target: TorchTarget) -> None:
    prompt = prompt_of(14)
    slot = await target.slot(prompt, GREEDY)
    await slot.verify(Pass(tuple(prompt), (5, 6, 7), (-1, -1, 1)), ignore)
    slot.keep([1, 2])
    slot.close()
    text = [*prompt, 6, 7, 8]
    resumed = await target.slot(text, GREEDY)
    assert resumed.cached == 16
    assert await decode(resumed, text, 4) == text_alone(target.model, text, 4, GREEDY)


async def test_a_common_beginning_is_held_once_and_no_text_sees_the_others_end(target: TorchTarget) -> None:
    system, prompts = prompt_of(3 * BLOCK_ROWS), [prompt_of(9, seed=seed) for seed in (1, 2, 3)]
    first = await target.slot(system, GREEDY)
    await first.prefill(system)
    held = target.pool.held_rows
    texts = [[*system, *prompt] for prompt in prompts]
    slots = [await target.slot(text, WARM) for text in texts]
    assert [slot.cached for slot in slots] == [3 * BLOCK_ROWS] * 3
    assert target.pool.held_rows == held + 3 * (BLOCK_ROWS + GROWTH_ROWS)
    found = await asyncio.gather(*(decode(slot, text, 20) for slot, text in zip(slots, texts, strict=True)))
    assert found == [text_alone(target.model, text, 20, WARM) for text in texts]


async def test_texts_that_begin_alike_at_the_same_time_end_up_sharing_their_blocks(target: TorchTarget) -> None:
    prompt = prompt_of(2 * BLOCK_ROWS + 3)
    slots = [await target.slot(prompt, WARM) for _ in range(4)]
    texts = await asyncio.gather(*(decode(slot, prompt, 6) for slot in slots))
    assert texts == [text_alone(target.model, prompt, 6, WARM)] * 4
    assert len({tuple(slot._text.runs(2 * BLOCK_ROWS)) for slot in slots}) == 1


async def test_another_owner_shares_nothing(target: TorchTarget) -> None:
    prompt = prompt_of(2 * BLOCK_ROWS)
    slot = await target.slot(prompt, GREEDY, "one key")
    await slot.prefill(prompt)
    assert (await target.slot([*prompt, 1], GREEDY, "another key")).cached == 0
    assert (await target.slot([*prompt, 1], GREEDY, "one key")).cached == 2 * BLOCK_ROWS


async def test_an_owner_s_texts_hold_no_more_than_they_may_and_others_do(target: TorchTarget) -> None:
    most = 3 * BLOCK_ROWS + GROWTH_ROWS + BLOCK_ROWS
    apart = TorchTarget(target.model, cache_bytes=1 << 24)
    apart.divide(lambda owner: 1.0, lambda owner: most if owner == "small" else 0)
    text, other = list(range(10, 10 + 3 * BLOCK_ROWS)), list(range(20, 20 + 2 * BLOCK_ROWS))
    first = await apart.slot(text, GREEDY, "small")
    error = await refused(lambda: apart.slot(other, GREEDY, "small"))
    assert (error.code, error.retry_after_s) == ("busy", 1.0)
    assert "limit: cache" in error.reason
    await apart.slot(other, GREEDY, "large")
    first.close()
    await apart.slot(other, GREEDY, "small")
    await apart.close()


async def test_without_a_prefix_cache_nothing_is_shared_or_found_again(target: TorchTarget) -> None:
    prompt = list(range(10, 10 + 2 * BLOCK_ROWS))
    apart = TorchTarget(target.model, cache_bytes=1 << 22, prefix_cache=False)
    slot = await apart.slot([*prompt, 1], GREEDY)
    await slot.prefill(prompt)
    assert (await apart.slot([*prompt, 1], GREEDY)).cached == 0
    slot.close()
    assert (await apart.slot([*prompt, 1], GREEDY)).cached == 0
    assert apart.pool.idle_rows == 0
    await apart.close()


def small_target(model: LoadedModel, rows: int, **options: Any) -> TorchTarget:
    """A target whose budget holds ``rows`` rows."""
    return TorchTarget(model, cache_bytes=rows * model.kv.row_bytes, **options)


async def refused(call: Callable[[], Any]) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        await call()
    return caught.value


async def test_a_session_too_many_is_refused_with_a_hint_when_to_retry(model: LoadedModel) -> None:
    target = TorchTarget(model, max_slots=2, retry_after_s=2.5)
    slots = [await target.slot([1], GREEDY) for _ in range(2)]
    error = await refused(lambda: target.slot([1], GREEDY))
    assert (error.code, error.retry_after_s) == ("busy", 2.5)
    slots[0].close()
    slots[0].close()  # closing twice is fine
    await target.slot([1], GREEDY)
    await target.close()


async def test_slots_beyond_the_memory_budget_are_refused(model: LoadedModel) -> None:
    target = small_target(model, 2 * (GROWTH_ROWS + BLOCK_ROWS), max_slots=9)
    slots = [await target.slot([1], GREEDY) for _ in range(2)]
    error = await refused(lambda: target.slot([1], GREEDY))
    assert error.code == "busy"
    assert error.retry_after_s is not None
    slots[0].close()
    await target.slot([1], GREEDY)
    await target.close()


async def test_text_that_can_never_fit_the_budget_is_refused_without_a_retry(model: LoadedModel) -> None:
    target = small_target(model, 100)
    error = await refused(lambda: target.slot([1] * 97, GREEDY))
    assert (error.code, error.retry_after_s) == ("busy", None)
    assert "cache_bytes" in str(error)
    await target.close()


async def test_blocks_that_nobody_needs_go_when_memory_is_wanted_least_recently_used_first(model: LoadedModel) -> None:
    target = small_target(model, 2 * GROWTH_ROWS + 2 * BLOCK_ROWS)
    prompts = [prompt_of(2 * BLOCK_ROWS + 1, seed=index) for index in range(2)]
    for prompt in prompts:
        slot = await target.slot(prompt, GREEDY)
        await slot.prefill(prompt)
        slot.close()
    assert target.pool.idle_rows == 4 * BLOCK_ROWS
    long = prompt_of(250, seed=7)
    (await target.slot(long, GREEDY)).close()  # took all that was free, and with its growth the first text's blocks
    assert [(await target.slot(prompt, GREEDY)).cached for prompt in reversed(prompts)] == [2 * BLOCK_ROWS, 0]
    await target.close()


async def test_cache_grows_with_the_text(model: LoadedModel) -> None:
    target = small_target(model, 2 * (GROWTH_ROWS + BLOCK_ROWS))
    slot = await target.slot([1], GREEDY)
    prompt = prompt_of(230)
    text = prompt + await decode(slot, prompt, 10)
    for token in text:  # far more rows than were set aside, in passes of many branches
        if slot.cached + 34 > model.context:
            break
        await slot.verify(Pass((token,), (1,) * 32, (-1,) * 32), ignore)
    assert text[-10:] == text_alone(model, prompt, 10, GREEDY)
    await target.close()


@pytest.mark.parametrize(
    ("batch", "code", "named"),
    [
        (Pass(()), "invalid", "tip"),
        (Pass((VOCABULARY,)), "invalid", "258"),
        (Pass((1,), (-1,), (-1,)), "invalid", "-1"),
        (Pass((1,), (1,) * 33, (-1,) * 33), "invalid", "33 nodes.*32"),
        (Pass((1,), (2, 3), (-1, 1)), "invalid", "no tree"),
        (Pass((1,), (2,), ()), "invalid", "no tree"),
        (Pass((1,), exits=(2,)), "invalid", r"\[2\].*\[1, 3\]"),
        (Pass((1,) * 257), "too_long", "257.*256"),
    ],
)
async def test_malformed_pass_is_refused_by_name(target: TorchTarget, batch: Pass, code: str, named: str) -> None:
    slot = await target.slot([1], GREEDY)
    with pytest.raises(RefusedError, match=named) as caught:
        await slot.verify(batch, ignore)
    assert caught.value.code == code
    assert (await slot.verify(Pass((1,)), ignore)).prediction.layer == 4


async def test_text_out_of_bounds_is_refused_a_slot(target: TorchTarget) -> None:
    assert (await refused(lambda: target.slot([1, VOCABULARY], GREEDY))).code == "invalid"
    assert (await refused(lambda: target.slot([1] * 257, GREEDY))).code == "too_long"


async def test_only_a_path_of_the_last_pass_can_be_kept(target: TorchTarget) -> None:
    slot = await target.slot([1], GREEDY)
    with pytest.raises(ValueError, match="no path"):
        slot.keep([0])
    await slot.verify(Pass((1,), (2, 3), (-1, -1)), ignore)
    with pytest.raises(ValueError, match="no path"):
        slot.keep([0, 1])


async def test_closed_target_and_closed_slot_refuse(target: TorchTarget) -> None:
    slot, other = await target.slot([1], GREEDY), await target.slot([1], GREEDY)
    slot.close()
    assert (await refused(lambda: slot.verify(Pass((1,)), ignore))).code == "internal"
    before = set(threading.enumerate())
    await other.verify(Pass((1,)), ignore)
    worker = set(threading.enumerate()) - before
    assert len(worker) == 1
    await target.close()
    await target.close()
    assert not worker & set(threading.enumerate())
    assert (await refused(lambda: other.verify(Pass((1,)), ignore))).code == "internal"
