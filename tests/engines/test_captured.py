"""Captured forwards, as far as a machine without a GPU can tell: their plans, their cuts, and what they give way to."""

import logging
import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engines.conftest import TinyModel
from engines.torch_reference import GREEDY, WARM, PlainHeads, decode, prompt_of
from foredraft.engines import attention
from foredraft.engines.captured import (
    BASE,
    BEFORE,
    BEGIN,
    COUNT,
    FIRST,
    NODES,
    SIZES,
    SLOTS,
    TAKEN,
    After,
    CapturedForwards,
    Size,
    UncapturableError,
    apart,
    capture,
    plan,
    tile_rows,
)
from foredraft.engines.kv_memory import KvMemory
from foredraft.engines.model_check import most_apart
from foredraft.engines.rows import Part
from foredraft.engines.torch_model import LoadedModel, load_model
from foredraft.engines.torch_target import TorchTarget
from foredraft.protocol.ports import Pass, Prediction

SCRATCH = 999


def seen_by(given: Tensor, table: Tensor) -> dict[int, list[int]]:
    """Which places of the memory each row of a plan sees, in order."""
    seen: dict[int, list[int]] = {}
    for begin, count, base, first, taken in given[BEGIN : TAKEN + 1].T.tolist():
        for row in range(first, first + taken):
            before, nodes = int(given[BEFORE, row]), int(given[NODES, row])
            columns = [at for at in range(count) if at < before or (at >= base and nodes >> (at - base) & 1)]
            seen[row] = [int(table[begin + at]) for at in columns]
    return seen


def plain_attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    given: Tensor,
    table: Tensor,
    scale: float | None,
) -> Tensor:
    """What the kernel computes, row by row."""
    keys.index_copy_(2, given[SLOTS], key)
    values.index_copy_(2, given[SLOTS], value)
    out = torch.zeros_like(query)
    for row, places in seen_by(given, table).items():
        if places:
            own = query[:, :, row : row + 1]
            out[:, :, row : row + 1] = attention.attention(
                own, keys[:, :, places], values[:, :, places], None, {"scaling": scale}
            )
    return out.transpose(1, 2)


class EagerSize(Size):
    """A size that is run anew each time, in the place of a graph."""

    def capture(self, model: LoadedModel, pool: Any) -> Any:
        self._model = model

    def replay(self, after: After | None) -> Tensor:
        self._heard = after
        self.scratch.clear()
        with attention.run(self):
            return self._forward(self._model)[0]

    def after(self, layers: int, hidden: Tensor) -> None:
        if layers in self._cuts and self._heard is not None:
            self._heard(layers, hidden)


def captured_of(target: TorchTarget) -> CapturedForwards:
    cuts = target.exits.layers if target.exits else ()
    return CapturedForwards(target.model, target.memory, cuts, plain_attend, EagerSize)


@st.composite
def parts(draw: st.DrawFn) -> list[Part]:
    """Texts side by side in the memory, each in one or two pieces, with a chain and perhaps a tree under it."""
    made: list[Part] = []
    place = 0
    for _ in range(draw(st.integers(1, 4))):
        start, chain, nodes = draw(st.integers(0, 30)), draw(st.integers(1, 20)), draw(st.integers(0, 8))
        base, end = start + chain, start + chain + nodes
        sees: list[list[int]] = []
        for node in range(nodes):
            parent = draw(st.integers(-1, node - 1))
            sees.append([*(sees[parent] if parent >= 0 else ()), node])
        cut = draw(st.integers(1, end))
        runs = [(place, place + end)] if cut == end else [(place, place + cut), (place + cut + 5, place + end + 5)]
        place += end + 7
        positions = [base + len(seen) - 1 for seen in sees]
        made.append(Part(list(range(chain + nodes)), runs, start, base, positions, sees))
    return made


@settings(deadline=None)
@given(parts(), st.integers(1, 16), st.integers(0, 9))
def test_each_row_of_a_plan_sees_what_its_mask_says_and_rows_of_no_meaning_see_nothing(
    texts: list[Part], most: int, room: int
) -> None:
    first = 0
    for part in texts:
        part.first = first
        first = part.last
    planned = plan(texts, first + room, most, SCRATCH)
    seen = seen_by(planned.given, planned.table)
    assert sorted(seen) == list(range(first + room))
    for part in texts:
        places = [place for run in part.runs for place in range(*run)]
        mask = part.mask(None, torch.zeros(1))
        for row in range(part.last - part.first):
            open_to = [True] * part.end if mask is None else (mask[row] == 0).tolist()
            assert seen[part.first + row] == [place for place, ok in zip(places, open_to, strict=True) if ok]
    assert all(not seen[row] and planned.given[SLOTS, row] == SCRATCH for row in range(first, first + room))
    assert planned.given[TAKEN].max() <= most
    assert planned.given[[BEGIN, COUNT, BASE, FIRST]].min() >= 0


async def test_texts_and_exits_are_those_of_forwards_that_are_not_captured(tiny_model: TinyModel) -> None:
    model = load_model(tiny_model("llama", head_dim=16))
    said: list[list[object]] = []
    for captured in (False, True):
        target = TorchTarget(model, PlainHeads(model))
        target.turns.captured = captured_of(target) if captured else None
        prompt, heard = prompt_of(40), list[Prediction]()
        slot = await target.slot(prompt, WARM)
        await slot.prefill(prompt[:-1])
        tree = Pass((prompt[-1],), (5, 6, 7, 8), (-1, 0, 0, 2), target.card.exits)
        verdict = await slot.verify(tree, heard.append)
        slot.keep([0, 2])
        after = await slot.verify(Pass((9,), (), ()), heard.append)
        other = await target.slot(prompt[:5], GREEDY)
        said.append([verdict.prediction, after.prediction, heard, await decode(other, prompt[:5], 12)])
        await target.close()
    assert [one.layer for one in said[0][2]] == [1, 3]  # type: ignore[attr-defined]
    plain, ours = said
    assert [one.tokens for one in ours[2]] == [one.tokens for one in plain[2]]  # type: ignore[attr-defined]
    assert ours[3] == plain[3]
    assert [ours[at].tokens for at in (0, 1)] == [plain[at].tokens for at in (0, 1)]  # type: ignore[attr-defined]


async def test_a_forward_larger_than_all_sizes_runs_as_everywhere(tiny_model: TinyModel) -> None:
    target = TorchTarget(load_model(tiny_model("llama", head_dim=16, max_position_embeddings=2048)), prefill_chunk=2048)
    target.turns.captured = captured = captured_of(target)
    assert captured.fits([Part([1] * SIZES[-1], [(0, SIZES[-1])], 0, SIZES[-1])])
    more = SIZES[-1] + 1
    assert not captured.fits([Part([1] * more, [(0, more)], 0, more)])
    assert not captured.fits([Part([1] * 70, [(0, 70)], 0, 1, [1] * 69, [[node] for node in range(69)])])
    slot = await target.slot([1], GREEDY)
    await slot.prefill([1] * more)
    assert slot.cached == more
    await target.close()


@pytest.mark.parametrize("rules", [{"sliding_window": 8}, {"softcap": 30.0}, {"s_aux": torch.zeros(4)}])
def test_attention_of_its_own_kind_is_not_captured(tiny_model: TinyModel, rules: dict[str, Any]) -> None:
    model = load_model(tiny_model("llama", head_dim=16))
    size = Size(4, KvMemory(model.kv, 32, model.device), torch.zeros(64, dtype=torch.int32), (), plain_attend)
    some = torch.zeros(1, 4, 4, 16)
    with pytest.raises(UncapturableError, match=next(iter(rules))):
        size.attend(0, some, some, some, rules)


def test_a_model_that_cannot_be_captured_runs_one_operation_after_another_and_says_so(
    tiny_model: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(tiny_model("llama", head_dim=16))
    elsewhere = replace(model, device=torch.device("cuda"))  # which is not there
    with caplog.at_level(logging.WARNING):
        assert capture(elsewhere, KvMemory(model.kv, 32, model.device), ()) is None
    assert "one operation after another" in caplog.text


@pytest.mark.skipif(not find_spec("triton"), reason="triton comes with torch for GPUs; pip install triton")
def test_the_kernel_computes_what_a_row_by_row_attention_does() -> None:
    # In a process of its own: triton reads this once, and others import it.
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    code = f"from engines.test_captured import compare_kernel; [compare_kernel(*heads) for heads in {HEADS}]"
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


HEADS = [(4, 4, 16, 16), (8, 2, 64, 32), (6, 2, 32, 64), (40, 2, 16, 32), (4, 2, 16, 300)]
"""Query heads, heads of keys, their dimension, and rows in all: few and many."""


def compare_kernel(query_heads: int, heads: int, dim: int, rows: int) -> None:
    """Fails where the kernel says something else than ``plain_attend``."""
    from foredraft.engines.tree_kernel import attend

    torch.manual_seed(dim)
    places = 400
    memory = torch.randn(2, places, heads * dim)
    keys, values = (plane.view(1, places, heads, dim).transpose(1, 2) for plane in memory)
    tree = Part(
        list(range(7)),
        [(3, 80), (100, 131)],
        101,
        103,
        [103, 104, 105, 104, 105],
        [[0], [0, 1], [0, 1, 2], [0, 3], [0, 3, 4]],
    )
    texts = [tree, Part([1], [(200, 201)], 0, 1)]
    if rows > 16:
        texts.append(Part(list(range(20)), [(210, 240)], 10, 30))
    first = 0
    for part in texts:
        part.first = first
        first = part.last
    planned = plan(texts, rows, tile_rows(rows, query_heads // heads), places - 1)
    query = torch.randn(1, rows, query_heads, dim).transpose(1, 2)
    key, value = torch.randn(2, 1, rows, heads, dim).transpose(2, 3)
    own = memory.clone().view(2, 1, places, heads, dim).transpose(2, 3)
    said = attend(query, key, value, keys, values, planned.given, planned.table.int(), None)
    wanted = plain_attend(query, key, value, own[0], own[1], planned.given, planned.table, None)
    torch.testing.assert_close(torch.stack([keys, values])[:, :, :, :-1], own[:, :, :, :-1])
    torch.testing.assert_close(said, wanted, atol=1e-6, rtol=1e-5)


def test_a_kernel_that_says_something_else_in_one_size_is_found_at_load(tiny_model: TinyModel) -> None:
    model = load_model(tiny_model("llama", head_dim=16))
    memory = KvMemory(model.kv, 32, model.device)

    def wrong(query: Tensor, *given: Any) -> Tensor:
        said = plain_attend(query, *given)
        return said if query.shape[2] != 512 else said * 0.0

    with torch.inference_mode():
        right = CapturedForwards(model, memory, (), plain_attend, EagerSize)
        assert apart(model, memory, right) <= most_apart(model)
        assert apart(model, memory, CapturedForwards(model, memory, (), wrong, EagerSize)) > most_apart(model)
