"""The torch target: passes, trees, exits, seats."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engines.conftest import TinyModel
from engines.tiny_models import FAMILIES, VOCABULARY
from foredraft.core.ports import Pass, Reading, Seat
from foredraft.core.sampling import Sampling
from foredraft.engines import target_pass, torch_model
from foredraft.engines.cache_pool import GROWTH_ROWS
from foredraft.engines.flat_cache import row_bytes
from foredraft.engines.noise import sample
from foredraft.engines.torch_model import LoadedModel, load_model, run_layers
from foredraft.engines.torch_target import TorchSeat, TorchTarget
from foredraft.errors import ModelError, RefusedError

GREEDY = Sampling()
WARM = Sampling(temperature=0.8, top_k=50, top_p=0.95, seed=11)
WINDOWS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in FAMILIES},
    "mistral window": ("mistral", {"sliding_window": 7}),
    "qwen2 window": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}),
}


class PlainHeads:
    """Exits that apply the model's own norm and output layer early."""

    layers = (1, 3)

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def read(
        self, layer: int, hidden: Tensor, positions: Tensor, sampling: Sampling, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        logits = self._model.logits(hidden)
        return sample(logits, positions, sampling), logits.softmax(-1).amax(-1)


def prompt_of(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()


def next_token(model: LoadedModel, text: Sequence[int], sampling: Sampling, layer: int = 4) -> int:
    """What one run over the whole text, without a cache, says comes next."""
    hidden = run_layers(model, torch.tensor([text]), {layer})[layer][0, -1:]
    return int(sample(model.logits(hidden), torch.tensor([len(text)]), sampling))


def text_alone(model: LoadedModel, prompt: Sequence[int], count: int, sampling: Sampling) -> list[int]:
    """The reference text, one whole run per token."""
    text = list(prompt)
    for _ in range(count):
        text.append(next_token(model, text, sampling))
    return text[len(prompt) :]


def ignore(reading: Reading) -> None:
    """An exit that nobody listens to."""


async def decode(seat: Seat, prompt: Sequence[int], count: int) -> list[int]:
    """``count`` tokens, one per pass."""
    text = list(prompt)
    if len(text) - 1 > seat.cached:
        await seat.prefill(text[seat.cached : -1])
    for _ in range(count):
        verdict = await seat.verify(Pass(tuple(text[seat.cached :])), ignore)
        text.append(verdict.reading.tokens[0])
    return text[len(prompt) :]


@pytest.fixture
def model(tiny_model: TinyModel) -> LoadedModel:
    return load_model(tiny_model())


@pytest_asyncio.fixture(loop_scope="function")
async def target(model: LoadedModel) -> AsyncIterator[TorchTarget]:
    target = TorchTarget(model, PlainHeads(model), prefill_chunk=16)
    yield target
    await target.close()


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


def cached_rows(seat: TorchSeat) -> Tensor:
    """The rows that the seat's cache holds for its text, pending moves done."""
    cache = seat._held.cache
    with torch.inference_mode():
        cache.prepare(0, 0)
    return cache._rows[:, :, :, : seat.cached]


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
        fresh = await target.seat(text, WARM)
        await fresh.prefill(text)
        torch.testing.assert_close(cached_rows(seat), cached_rows(fresh), atol=1e-4, rtol=1e-4)
        assert await decode(seat, [*text, 1], 2) == text_alone(model, [*text, 1], 2, WARM)
        await target.close()

    asyncio.run(one_pass())


_loaded: dict[Path, LoadedModel] = {}


def loaded_once(folder: Path) -> LoadedModel:
    """The model in ``folder``, loaded once for all examples."""
    if folder not in _loaded:
        _loaded[folder] = load_model(folder)
    return _loaded[folder]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> "Gate":
    return Gate(monkeypatch)


class Gate:
    """Counts the layers that run, and holds those from ``closed_from`` on until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.closed_from = 1000
        self.opened, self.reached = threading.Event(), threading.Event()
        self.layers: list[int] = []

        def run_range(*args: Any) -> Tensor:
            span: range = args[-1]
            if span and span[-1] >= self.closed_from:
                self.reached.set()
                if not self.opened.wait(30):
                    raise RuntimeError("the gate was never opened")
            self.layers.extend(span)
            return torch_model.run_range(*args)

        monkeypatch.setattr(target_pass, "run_range", run_range)

    async def until_reached(self) -> None:
        await asyncio.to_thread(self.reached.wait, 30)


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


async def test_failed_pass_is_a_model_error_and_leaves_the_cache_as_it_was(
    target: TorchTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = prompt_of(5)
    seat = await target.seat(prompt, GREEDY)
    await seat.prefill(prompt[:3])
    with monkeypatch.context() as patch:

        def fail(*args: Any) -> Tensor:
            raise torch.OutOfMemoryError("out of memory")

        patch.setattr(target_pass, "sample", fail)
        with pytest.raises(ModelError, match="out of memory"):
            await seat.verify(Pass(tuple(prompt[3:]), (9,), (-1,)), ignore)
    assert seat.cached == 3
    assert await decode(seat, prompt, 5) == text_alone(target.model, prompt, 5, GREEDY)


async def test_interleaved_seats_write_the_texts_that_they_write_alone(target: TorchTarget) -> None:
    prompts = [prompt_of(5 + 3 * index, seed=index) for index in range(5)]
    seats = [await target.seat(prompt, WARM) for prompt in prompts]
    texts = await asyncio.gather(*(decode(seat, prompt, 8) for seat, prompt in zip(seats, prompts, strict=True)))
    assert list(texts) == [text_alone(target.model, prompt, 8, WARM) for prompt in prompts]


async def test_seats_take_turns(target: TorchTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    async def passes(name: str) -> None:
        seat = await target.seat([1], GREEDY)
        for token in range(4):
            await seat.verify(Pass((token,)), ignore)
            order.append(name)

    await asyncio.gather(passes("a"), passes("b"), passes("c"))
    assert all(set(order[turn : turn + 3]) == {"a", "b", "c"} for turn in range(0, 12, 3))


async def test_resumed_text_reuses_the_cache_of_its_prefix(target: TorchTarget) -> None:
    prompt = prompt_of(30)
    seat = await target.seat(prompt, WARM)
    first = await decode(seat, prompt, 6)
    seat.close()
    longer = [*prompt, *first, *prompt_of(4, seed=9)]
    resumed = await target.seat(longer, WARM)
    assert resumed.cached == len(prompt) + len(first) - 1  # the last token was never run
    assert await decode(resumed, longer, 6) == text_alone(target.model, longer, 6, WARM)


async def test_same_text_again_leaves_its_tip_to_run(target: TorchTarget) -> None:
    prompt = prompt_of(10)
    seat = await target.seat(prompt, WARM)
    first = await decode(seat, prompt, 3)
    seat.close()
    again = await target.seat(prompt, WARM)
    assert again.cached == len(prompt) - 1
    assert await decode(again, prompt, 3) == first


async def test_cache_kept_with_moves_still_to_do_is_reused_correctly(target: TorchTarget) -> None:
    prompt = prompt_of(10)
    seat = await target.seat(prompt, GREEDY)
    await seat.verify(Pass(tuple(prompt), (5, 6, 7), (-1, -1, 1)), ignore)
    seat.keep([1, 2])
    seat.close()
    text = [*prompt, 6, 7, 8]
    resumed = await target.seat(text, GREEDY)
    assert resumed.cached == len(prompt) + 2
    assert await decode(resumed, text, 4) == text_alone(target.model, text, 4, GREEDY)


async def test_another_text_does_not_take_over_a_cache_for_a_short_common_beginning(target: TorchTarget) -> None:
    prompt = prompt_of(30)
    seat = await target.seat(prompt, GREEDY)
    await seat.prefill(prompt)
    seat.close()
    other = await target.seat([*prompt[:5], 1, 2, 3], GREEDY)
    again = await target.seat(prompt, GREEDY)
    assert (other.cached, again.cached) == (0, len(prompt) - 1)


def small_target(model: LoadedModel, rows: int, **options: Any) -> TorchTarget:
    """A target whose budget holds ``rows`` rows."""
    return TorchTarget(model, cache_bytes=rows * row_bytes(model.kv_shape, model.dtype), **options)


async def refused(call: Callable[[], Any]) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        await call()
    return caught.value


async def test_a_session_too_many_is_refused_with_a_hint_when_to_retry(model: LoadedModel) -> None:
    target = TorchTarget(model, max_seats=2, retry_after_s=2.5)
    seats = [await target.seat([1], GREEDY) for _ in range(2)]
    error = await refused(lambda: target.seat([1], GREEDY))
    assert (error.code, error.retry_after_s) == ("busy", 2.5)
    seats[0].close()
    seats[0].close()  # closing twice is fine
    await target.seat([1], GREEDY)
    await target.close()


async def test_seats_beyond_the_memory_budget_are_refused(model: LoadedModel) -> None:
    target = small_target(model, 2 * (GROWTH_ROWS + 1))
    seats = [await target.seat([1], GREEDY) for _ in range(2)]
    error = await refused(lambda: target.seat([1], GREEDY))
    assert error.code == "busy"
    assert error.retry_after_s is not None
    seats[0].close()
    await target.seat([1], GREEDY)
    await target.close()


async def test_text_that_can_never_fit_the_budget_is_refused_without_a_retry(model: LoadedModel) -> None:
    target = small_target(model, 100)
    error = await refused(lambda: target.seat([1], GREEDY))
    assert (error.code, error.retry_after_s) == ("busy", None)
    assert "cache_bytes" in str(error)
    await target.close()


async def test_idle_caches_are_dropped_least_recently_used_first(model: LoadedModel) -> None:
    target = small_target(model, 2 * (GROWTH_ROWS + 20))
    prompts = [prompt_of(20, seed=index) for index in range(3)]
    for prompt in prompts[:2]:
        seat = await target.seat(prompt, GREEDY)
        await seat.prefill(prompt)
        seat.close()
    taken = [await target.seat(prompts[2], GREEDY)]  # the first of the two had to go
    taken.append(await target.seat(prompts[1], GREEDY))
    assert [seat.cached for seat in taken] == [0, 19]
    await target.close()


async def test_idle_cache_expires(model: LoadedModel) -> None:
    target = TorchTarget(model, idle_s=0.0)
    seat = await target.seat([1, 2, 3], GREEDY)
    await seat.prefill([1, 2, 3])
    seat.close()
    await asyncio.sleep(0.01)
    assert (await target.seat([1, 2, 3], GREEDY)).cached == 0
    await target.close()


async def test_cache_grows_with_the_text(model: LoadedModel) -> None:
    target = small_target(model, 2 * (GROWTH_ROWS + 1))
    seat = await target.seat([1], GREEDY)
    prompt = prompt_of(230)
    text = prompt + await decode(seat, prompt, 10)
    for token in text:  # far more rows than were set aside, in passes of many branches
        if seat.cached + 34 > model.context:
            break
        await seat.verify(Pass((token,), (1,) * 32, (-1,) * 32), ignore)
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
    seat = await target.seat([1], GREEDY)
    with pytest.raises(RefusedError, match=named) as caught:
        await seat.verify(batch, ignore)
    assert caught.value.code == code
    assert (await seat.verify(Pass((1,)), ignore)).reading.layer == 4


async def test_text_out_of_bounds_is_refused_a_seat(target: TorchTarget) -> None:
    assert (await refused(lambda: target.seat([1, VOCABULARY], GREEDY))).code == "invalid"
    assert (await refused(lambda: target.seat([1] * 257, GREEDY))).code == "too_long"


async def test_only_a_path_of_the_last_pass_can_be_kept(target: TorchTarget) -> None:
    seat = await target.seat([1], GREEDY)
    with pytest.raises(ValueError, match="no path"):
        seat.keep([0])
    await seat.verify(Pass((1,), (2, 3), (-1, -1)), ignore)
    with pytest.raises(ValueError, match="no path"):
        seat.keep([0, 1])


async def test_closed_target_and_closed_seat_refuse(target: TorchTarget) -> None:
    seat, other = await target.seat([1], GREEDY), await target.seat([1], GREEDY)
    seat.close()
    assert (await refused(lambda: seat.verify(Pass((1,)), ignore))).code == "internal"
    before = set(threading.enumerate())
    await other.verify(Pass((1,)), ignore)
    worker = set(threading.enumerate()) - before
    assert len(worker) == 1
    await target.close()
    await target.close()
    assert not worker & set(threading.enumerate())
    assert (await refused(lambda: other.verify(Pass((1,)), ignore))).code == "internal"


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
