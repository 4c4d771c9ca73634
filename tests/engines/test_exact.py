"""With ``exact`` on, a row's logits are a function of its own path alone, to the bit, also in half precision."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engines.test_families import tiny
from engines.torch_reference import ignore, prompt_of
from foredraft.engines import exact, target_pass
from foredraft.engines.exact import Tiles, is_exact, price
from foredraft.engines.rows import TILE, Rows
from foredraft.engines.torch_model import LoadedModel, ready
from foredraft.engines.torch_target import TorchTarget
from foredraft.errors import ConfigError
from foredraft.protocol.ports import Pass
from foredraft.protocol.sampling import Sampling

LENGTH = 40
START = 11
FAMILIES = ("llama", "qwen3", "gemma2", "gpt2", "mixtral", "gpt_oss", "phi")


def loaded(family: str, dtype: torch.dtype) -> LoadedModel:
    module = tiny(family).to(dtype)
    return ready(module, module.config, Path(family), ("", ""), dtype, torch.device("cpu"))


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """The logits of each forward, a tensor per group."""
    forwards: list[list[Tensor]] = []

    def run(model: LoadedModel, rows: Rows, wanted: Sequence[Any]) -> list[Tensor]:
        forwards.append([logits.clone() for logits in exact.run(model, rows, wanted)])
        return forwards[-1]

    monkeypatch.setattr(target_pass, "run", run)
    return forwards


async def rows_along(
    model: LoadedModel, heard: list[list[Tensor]], luck: random.Random | None, on: str, beside: int = 0
) -> Tensor:
    """``rows_of`` on a target of its own."""
    target = TorchTarget(model, cache_bytes=1 << 22, exact=on, prefill_chunk=16)
    rows = await rows_of(target, heard, luck, beside)
    await target.close()
    return rows


async def rows_of(
    target: TorchTarget, heard: list[list[Tensor]], luck: random.Random | None, beside: int = 0
) -> Tensor:
    """Logits of positions ``START - 1`` on of one text: one at a time, or in random chunks and trees beside others."""
    text = [3 + token for token in prompt_of(LENGTH)]
    slot = await target.slot(text, Sampling())
    others = [await target.slot([5 + number], Sampling(0.8, seed=number + 1)) for number in range(beside)]
    await slot.prefill(text[: START - 1] if luck is None else text[:4])
    if luck is not None:
        await asyncio.gather(slot.prefill(text[4 : START - 1]), *(other.prefill([7] * 21) for other in others))
    found: list[Tensor] = []
    position = START - 1
    while position < LENGTH:
        ahead = text[position + 1 : position + 1 + (0 if luck is None else luck.randint(0, 4))]
        tokens: list[int] = []
        parents: list[int] = []
        true: list[int] = []
        for token in ahead:  # each true token has a wrong sibling before it
            above = true[-1] if true else -1
            tokens += [token + 1, token]
            parents += [above, above]
            true.append(len(tokens) - 1)
        own = slot.verify(Pass((text[position],), tuple(tokens), tuple(parents)), ignore)
        await asyncio.gather(own, *(other.verify(Pass((9,), (4, 6), (-1, 0)), ignore) for other in others))
        logits = next(part for part in heard[-1] if len(part) == 1 + len(tokens))
        found += [logits[0], *(logits[1 + node] for node in true)]
        slot.keep(true)
        position += 1 + len(true)
    for used in (slot, *others):
        used.close()
    target.pool.clear()
    return torch.stack(found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("family", FAMILIES)
async def test_a_row_is_the_same_to_the_bit_in_any_tree_chunk_and_company(
    family: str, dtype: torch.dtype, heard: list[list[Tensor]]
) -> None:
    model = loaded(family, dtype)
    alone = await rows_along(model, heard, None, "on")
    for beside in (0, 3):
        among = await rows_along(model, heard, random.Random(beside), "on", beside)
        assert torch.equal(among, alone)


async def test_without_it_rows_in_half_precision_are_not_the_same(heard: list[list[Tensor]]) -> None:
    model = loaded("llama", torch.bfloat16)
    alone = await rows_along(model, heard, None, "off")
    assert not torch.equal(await rows_along(model, heard, random.Random(0), "off", 3), alone)


@pytest.mark.parametrize("rows", [0, 1, TILE, TILE + 3])
def test_products_in_tiles_are_the_products(rows: int) -> None:
    values, weight, bias = torch.randn(2, rows, 8), torch.randn(6, 8), torch.randn(6)
    sums = torch.randn(2 * rows, 6)
    with Tiles():
        by_tiles = torch.nn.functional.linear(values, weight, bias)
        added = torch.addmm(sums, values.view(-1, 8), weight.t())
        plain = values.view(-1, 8) @ weight.t()
        with_bias = torch.addmm(bias, values.view(-1, 8), weight.t())
    torch.testing.assert_close(by_tiles, torch.nn.functional.linear(values, weight, bias))
    torch.testing.assert_close(added, torch.addmm(sums, values.view(-1, 8), weight.t()))
    torch.testing.assert_close(plain, values.view(-1, 8) @ weight.t())
    torch.testing.assert_close(with_bias.view(by_tiles.shape), by_tiles)


def test_auto_is_on_where_it_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("llama", torch.float32)
    assert price(model, 1) > 0.5
    for figures, wanted in (((1.05, 1.1), True), ((1.05, 1.2), False), ((1.3, 1.0), False)):
        monkeypatch.setattr(exact, "price", lambda model, rows, figures=figures: figures[rows > 1])
        assert is_exact(model, "auto") is wanted
        assert TorchTarget(model, cache_bytes=1 << 20, exact="auto").card.exact is wanted
    assert is_exact(model, "on")
    assert not is_exact(model, "off")
    with pytest.raises(ConfigError, match="exact must be auto, on, off, not 'perhaps'"):
        is_exact(model, "perhaps")
