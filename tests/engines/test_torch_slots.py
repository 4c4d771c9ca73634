"""The torch target's slots: turns, caches that are kept and reused, budgets, refusals."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from engines.tiny_models import VOCABULARY
from engines.torch_reference import GREEDY, WARM, decode, ignore, prompt_of, text_alone
from foredraft.engines.cache_pool import GROWTH_ROWS
from foredraft.engines.flat_cache import row_bytes
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


async def test_resumed_text_reuses_the_cache_of_its_prefix(target: TorchTarget) -> None:
    prompt = prompt_of(30)
    slot = await target.slot(prompt, WARM)
    first = await decode(slot, prompt, 6)
    slot.close()
    longer = [*prompt, *first, *prompt_of(4, seed=9)]
    resumed = await target.slot(longer, WARM)
    assert resumed.cached == len(prompt) + len(first) - 1  # the last token was never run
    assert await decode(resumed, longer, 6) == text_alone(target.model, longer, 6, WARM)


async def test_same_text_again_leaves_its_tip_to_run(target: TorchTarget) -> None:
    prompt = prompt_of(10)
    slot = await target.slot(prompt, WARM)
    first = await decode(slot, prompt, 3)
    slot.close()
    again = await target.slot(prompt, WARM)
    assert again.cached == len(prompt) - 1
    assert await decode(again, prompt, 3) == first


async def test_cache_kept_with_moves_still_to_do_is_reused_correctly(target: TorchTarget) -> None:
    prompt = prompt_of(10)
    slot = await target.slot(prompt, GREEDY)
    await slot.verify(Pass(tuple(prompt), (5, 6, 7), (-1, -1, 1)), ignore)
    slot.keep([1, 2])
    slot.close()
    text = [*prompt, 6, 7, 8]
    resumed = await target.slot(text, GREEDY)
    assert resumed.cached == len(prompt) + 2
    assert await decode(resumed, text, 4) == text_alone(target.model, text, 4, GREEDY)


async def test_another_text_does_not_take_over_a_cache_for_a_short_common_beginning(target: TorchTarget) -> None:
    prompt = prompt_of(30)
    slot = await target.slot(prompt, GREEDY)
    await slot.prefill(prompt)
    slot.close()
    other = await target.slot([*prompt[:5], 1, 2, 3], GREEDY)
    again = await target.slot(prompt, GREEDY)
    assert (other.cached, again.cached) == (0, len(prompt) - 1)


def small_target(model: LoadedModel, rows: int, **options: Any) -> TorchTarget:
    """A target whose budget holds ``rows`` rows."""
    return TorchTarget(model, cache_bytes=rows * row_bytes(model.kv_shape, model.dtype), **options)


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
    target = small_target(model, 2 * (GROWTH_ROWS + 1))
    slots = [await target.slot([1], GREEDY) for _ in range(2)]
    error = await refused(lambda: target.slot([1], GREEDY))
    assert error.code == "busy"
    assert error.retry_after_s is not None
    slots[0].close()
    await target.slot([1], GREEDY)
    await target.close()


async def test_text_that_can_never_fit_the_budget_is_refused_without_a_retry(model: LoadedModel) -> None:
    target = small_target(model, 100)
    error = await refused(lambda: target.slot([1], GREEDY))
    assert (error.code, error.retry_after_s) == ("busy", None)
    assert "cache_bytes" in str(error)
    await target.close()


async def test_idle_caches_are_dropped_least_recently_used_first(model: LoadedModel) -> None:
    target = small_target(model, 2 * (GROWTH_ROWS + 20))
    prompts = [prompt_of(20, seed=index) for index in range(3)]
    for prompt in prompts[:2]:
        slot = await target.slot(prompt, GREEDY)
        await slot.prefill(prompt)
        slot.close()
    taken = [await target.slot(prompts[2], GREEDY)]  # the first of the two had to go
    taken.append(await target.slot(prompts[1], GREEDY))
    assert [slot.cached for slot in taken] == [0, 19]
    await target.close()


async def test_idle_cache_expires(model: LoadedModel) -> None:
    target = TorchTarget(model, idle_s=0.0)
    slot = await target.slot([1, 2, 3], GREEDY)
    await slot.prefill([1, 2, 3])
    slot.close()
    await asyncio.sleep(0.01)
    assert (await target.slot([1, 2, 3], GREEDY)).cached == 0
    await target.close()


async def test_cache_grows_with_the_text(model: LoadedModel) -> None:
    target = small_target(model, 2 * (GROWTH_ROWS + 1))
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
