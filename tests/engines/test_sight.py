"""Models that see: what they say of images in the engine is what transformers says, whatever shares the forward."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from engines import tiny_eyes
from engines.torch_reference import GREEDY, WARM, PlainHeads, decode, ignore
from foredraft.engines.sight import Picture, Sight
from foredraft.engines.torch_model import LoadedModel, load_model
from foredraft.engines.torch_target import TorchTarget
from foredraft.errors import ImageError, ModelError, RefusedError
from foredraft.protocol.messages import INVALID
from foredraft.protocol.ports import Pass, Prediction
from foredraft.protocol.sampling import Sampling


@pytest.fixture(scope="module", params=tiny_eyes.FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_eyes.save(tmp_path_factory.mktemp("eyes") / request.param, request.param)


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return load_model(folder)


def target_of(model: LoadedModel, **changes: Any) -> TorchTarget:
    return TorchTarget(model, PlainHeads(model), cache_bytes=1 << 20, prefill_chunk=5, **changes)


def text_of(pictures: Sequence[Picture], seed: int = 5) -> list[int]:
    """A prompt with these images in it, text before, between and after."""
    words = torch.randint(0, 256, (4 * (len(pictures) + 1),), generator=torch.Generator().manual_seed(seed)).tolist()
    text = words[:4]
    for number, picture in enumerate(pictures, 1):
        text += [*picture.tokens, *words[4 * number : 4 * number + 4]]
    return text


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
@pytest.mark.parametrize("count", [1, 2])
async def test_a_text_with_images_is_what_transformers_writes(
    folder: Path, model: LoadedModel, sampling: Sampling, count: int
) -> None:
    images = [tiny_eyes.picture(84, 56 + 28 * number, seed=number) for number in range(count)]
    target = target_of(model)
    pictures = [await target.look(image) for image in images]
    prompt = text_of(pictures)
    slot = await target.slot_seeing(pictures, prompt, sampling)
    beside = await target.slot(prompt[:4] * 5, sampling)
    said, _ = await asyncio.gather(decode(slot, prompt, 12), decode(beside, prompt[:4] * 5, 12))
    plain = tiny_eyes.Plain(model, images)
    assert said == plain.text(prompt, 12, sampling)
    if sampling == GREEDY:
        assert said == plain.generated(prompt, 12)
    await target.close()


async def test_a_tree_and_its_exits_after_an_image_are_the_models_own(folder: Path, model: LoadedModel) -> None:
    image = tiny_eyes.picture(seed=3)
    plain, target = tiny_eyes.Plain(model, [image]), target_of(model)
    picture = await target.look(image)
    prompt = text_of([picture])
    slot = await target.slot_seeing([picture], prompt, GREEDY)
    await slot.prefill(prompt[:-1])
    heard: list[Prediction] = []
    tree = Pass((prompt[-1],), (20, 21, 31, 32), (-1, 0, -1, 2), (1, 3))
    verdict = await slot.verify(tree, heard.append)
    texts = [prompt, [*prompt, 20], [*prompt, 20, 21], [*prompt, 31], [*prompt, 31, 32]]
    assert list(verdict.prediction.tokens) == [plain.next_token(text, GREEDY) for text in texts]
    assert [prediction.layer for prediction in heard] == [1, 3]
    slot.keep([2, 3])
    after = await slot.verify(Pass((60,)), ignore)
    assert after.prediction.tokens[0] == plain.next_token([*prompt, 31, 32, 60], GREEDY)
    await target.close()


async def test_it_matters_which_image_it_is_and_the_same_one_is_found_again(model: LoadedModel) -> None:
    target = target_of(model)
    first, second = [await target.look(tiny_eyes.picture(112, 112, seed=seed)) for seed in (1, 2)]
    assert first.tokens == second.tokens
    prompt = text_of([first])
    texts = []
    for picture in (first, second, first):
        slot = await target.slot_seeing([picture], prompt, GREEDY)
        texts.append((slot.cached, await decode(slot, prompt, 8)))
        slot.close()
    (none, one), (little, other), (much, again) = texts
    assert one == again
    assert one != other
    assert none == little == 0  # what the two have in common is shorter than a block
    assert much >= 16
    await target.close()


async def test_a_resumed_text_goes_on_as_if_nothing_had_happened(folder: Path, model: LoadedModel) -> None:
    image = tiny_eyes.picture(seed=4)
    target = target_of(model, prefix_cache=False)
    picture = await target.look(image)
    prompt = text_of([picture])
    wanted = tiny_eyes.Plain(model, [image]).text(prompt, 10, WARM)
    slot = await target.slot_seeing([picture], [*prompt, *wanted[:5]], WARM)
    assert await decode(slot, [*prompt, *wanted[:5]], 5) == wanted[5:]
    await target.close()


async def test_an_image_without_a_place_in_the_text_is_refused(model: LoadedModel) -> None:
    target = target_of(model)
    picture = await target.look(tiny_eyes.picture())
    for pictures, text in (
        ([picture], [1, 2, 3]),
        ([picture, picture], text_of([picture])),
    ):
        with pytest.raises(RefusedError) as refused:
            await target.slot_seeing(pictures, text, GREEDY)
        assert refused.value.code == INVALID
        assert "place" in str(refused.value)
    assert target.pool.active == 0
    await target.close()


async def test_a_broken_image_is_refused_and_the_target_goes_on(model: LoadedModel) -> None:
    target = target_of(model)
    for broken in (b"", b"GIF89a", tiny_eyes.picture()[:200]):
        with pytest.raises(ImageError):
            await target.look(broken)
    assert len((await target.look(tiny_eyes.picture())).tokens) > 0
    await target.close()


async def test_exact_texts_of_images_do_not_depend_on_who_shares_the_forward(folder: Path) -> None:
    model = load_model(folder, "bfloat16")
    texts = []
    for crowd in (0, 3):
        target = target_of(model, exact="on")
        picture = await target.look(tiny_eyes.picture(seed=6))
        prompt = text_of([picture])
        slot = await target.slot_seeing([picture], prompt, WARM)
        others = [await target.slot(prompt[:4] * (3 + n), WARM) for n in range(crowd)]
        said, *_ = await asyncio.gather(
            decode(slot, prompt, 10), *(decode(other, prompt[:4] * (3 + n), 10) for n, other in enumerate(others))
        )
        texts.append(said)
        await target.close()
    assert texts[0] == texts[1]


def test_a_model_whose_engine_sees_something_else_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Sight.look

    def upside_down(self: Sight, inputs: Any) -> Picture:
        picture = look(self, inputs)
        return Picture(picture.tokens, picture.rows.flip(0), picture.deep, picture.inputs)

    monkeypatch.setattr(Sight, "look", upside_down)
    with pytest.raises(ModelError, match="something else of an image"):
        load_model(folder)
