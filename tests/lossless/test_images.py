"""Texts with images over a real server: what transformers alone writes, whatever drafts, and what is sent for them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import foredraft
from engines import tiny_eyes, tiny_models
from engines.torch_reference import PlainHeads
from foredraft.api.cloud import Cloud
from foredraft.api.edge import Edge, connect
from foredraft.cloud.gallery import Gallery
from foredraft.edge.connections import Retry
from foredraft.engines.ngram import NgramDrafter
from foredraft.engines.torch_model import LoadedModel, load_model
from foredraft.engines.torch_target import TorchTarget
from foredraft.errors import ConfigError, RefusedError, UnreachableError
from foredraft.images import EncodedImage, image_of
from foredraft.keys import Key, Keys, hash_of
from foredraft.protocol.ports import Link, eyes_of
from foredraft.protocol.sampling import Sampling
from foredraft.text.chat_template import render
from foredraft.text.tokenizer import Tokenizer

POLICIES = ("cloud", "sync", "seed", "ahead:patience_s=0.02", "auto")
LENGTH = 24
WARM = Sampling(0.8, 50, 0.95, 11)
FIRST, SECOND = tiny_eyes.picture(84, 56, seed=1), tiny_eyes.picture(56, 112, seed=2, kind="JPEG")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(tiny_eyes.save(tmp_path_factory.mktemp("eyes") / "qwen2_vl"))


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-only draft with the same tokenizer."""
    folder = tiny_models.save_model(tmp_path_factory.mktemp("blind"), vocab_size=tiny_eyes.VOCABULARY)
    tiny_eyes.save_tokenizer(folder)
    return folder


class Going:
    """A cloud that is there until it goes."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud: Cloud | None = cloud
        self.tokenizer = cloud.tokenizer
        self._links: list[Link] = []

    async def connect(self) -> Link:
        if self._cloud is None:
            raise UnreachableError("it is gone")
        self._links.append(await self._cloud.connect())
        return self._links[-1]

    async def go(self) -> None:
        self._cloud = None
        for link in self._links:
            await link.close()


@pytest_asyncio.fixture
async def cloud(model: LoadedModel) -> AsyncIterator[Cloud]:
    async with new_cloud(model) as cloud:
        yield cloud


def new_cloud(model: LoadedModel) -> Cloud:
    target = TorchTarget(model, PlainHeads(model), cache_bytes=1 << 20, prefill_chunk=16)
    return Cloud(target, Tokenizer.from_folder(model.folder))


def prompt_of(model: LoadedModel, *images: bytes, question: str = "what is it?") -> str:
    content: list[dict[str, Any]] = [*({"type": "image"} for _ in images), {"type": "text", "text": question}]
    return render(Tokenizer.from_folder(model.folder).chat, [{"role": "user", "content": content}])


def wanted(model: LoadedModel, prompt: str, images: list[bytes], sampling: Sampling, count: int = LENGTH) -> list[int]:
    """By transformers alone, each place as its processor makes it."""
    assert model.sight is not None
    plain = tiny_eyes.Plain(model, images)
    places = iter([model.sight.look(model.sight.read(image)).tokens for image in images])
    tokens: list[int] = []
    for token in Tokenizer.from_folder(model.folder).encode_rendered(prompt):
        tokens += next(places) if token == tiny_eyes.IMAGE else (token,)
    return plain.text(tokens, count, sampling)


async def written(edge: Edge, prompt: str, images: list[bytes], sampling: Sampling, **more: Any) -> Any:
    generation = edge.generate(
        prompt,
        images=[image_of(image) for image in images],
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        seed=sampling.seed,
        **({"max_new_tokens": LENGTH, "end_marks": False} | more),
    )
    return await generation.finish()


@pytest.mark.parametrize("draft", ["eyes", "blind", "ngram"])
async def test_every_policy_writes_what_transformers_alone_writes(
    cloud: Cloud, model: LoadedModel, blind: Path, draft: str
) -> None:
    drafts: dict[str, Any] = {"eyes": model.folder, "blind": blind, "ngram": "ngram"}
    cases = [([FIRST], Sampling()), ([FIRST, SECOND], WARM)]
    async with cloud.listen() as url, connect(url, draft=drafts[draft]) as edge:
        for images, sampling in cases:
            prompt = prompt_of(model, *images)
            expected = wanted(model, prompt, images, sampling)
            for policy in POLICIES:
                report = await written(edge, prompt, images, sampling, policy=policy)
                assert report.tokens == expected, policy
                if policy == "sync":
                    assert report.drafted > 0
                    if draft == "eyes":  # it sees what the target sees, and is the same model
                        assert report.accepted == report.drafted


async def test_an_image_is_sent_once_and_costs_are_told(cloud: Cloud, model: LoadedModel) -> None:
    async with cloud.listen() as url, connect(url) as edge:
        first = await written(edge, prompt_of(model, FIRST), [FIRST], WARM)
        again = await written(edge, prompt_of(model, FIRST), [FIRST], WARM)
        both = await written(edge, prompt_of(model, FIRST, SECOND), [FIRST, SECOND], WARM)
    assert first.image_bytes == len(FIRST)
    assert 0.0 < first.image_s <= first.ttft_s
    assert again.image_bytes == 0
    assert again.tokens == first.tokens
    assert both.image_bytes == len(SECOND)
    assert first.opening_bytes_up < first.bytes_up


async def test_the_next_image_of_the_same_size_goes_with_the_text(cloud: Cloud, model: LoadedModel) -> None:
    other = tiny_eyes.picture(84, 56, seed=9)
    async with connect(cloud) as edge:
        first = await written(edge, prompt_of(model, FIRST), [FIRST], WARM)
        sessions = cloud.service.counters.sessions
        second = await written(edge, prompt_of(model, other), [other], WARM)
    assert second.tokens == wanted(model, prompt_of(model, other), [other], WARM)
    assert second.tokens != first.tokens
    assert second.prompt_tokens == first.prompt_tokens
    assert cloud.service.counters.sessions == sessions + 1
    assert second.reconnects == 0


async def test_a_lost_link_and_another_server_change_nothing(model: LoadedModel) -> None:
    images, prompt = [FIRST, SECOND], prompt_of(model, FIRST, SECOND)
    expected = wanted(model, prompt, images, WARM, 40)
    async with new_cloud(model) as one, new_cloud(model) as other:
        going = Going(one)
        async with connect(going, other) as edge:
            generation = edge.generate(
                prompt,
                images=[image_of(image) for image in images],
                policy="sync",
                max_new_tokens=40,
                end_marks=False,
                temperature=WARM.temperature,
                top_k=WARM.top_k,
                top_p=WARM.top_p,
                seed=WARM.seed,
            )
            shown: list[int] = []
            async for piece in generation:
                shown += piece.tokens
                if len(shown) > 12:
                    await going.go()
        assert shown == expected
        assert generation.report.reconnects > 0
        assert other.service.counters.sessions == 1
        assert generation.report.image_bytes == 2 * (len(FIRST) + len(SECOND))


async def test_a_cloud_that_has_forgotten_an_image_is_sent_it_again(cloud: Cloud, model: LoadedModel) -> None:
    async with connect(cloud) as edge:
        first = await written(edge, prompt_of(model, FIRST), [FIRST], WARM)
        cloud.service.gallery = Gallery(eyes_of(cloud.target))
        await edge._connections.close()  # a connection that has seen it still holds it
        edge._connections._closed = False
        again = await written(edge, prompt_of(model, FIRST), [FIRST], WARM)
    assert again.tokens == first.tokens
    assert again.image_bytes == len(FIRST)
    assert again.reconnects == 1


async def test_texts_with_and_without_images_share_forwards(cloud: Cloud, model: LoadedModel) -> None:
    plain = wanted(model, prompt_of(model, FIRST), [FIRST], WARM)
    async with connect(cloud, draft=model.folder) as edge:
        text = await written(edge, "no image here", [], WARM, policy="cloud")
        reports = await asyncio.gather(
            *(written(edge, prompt_of(model, FIRST), [FIRST], WARM, policy=policy) for policy in POLICIES),
            *(written(edge, "no image here", [], WARM, policy=policy) for policy in POLICIES),
        )
    assert all(report.tokens == plain for report in reports[: len(POLICIES)])
    assert all(report.tokens == text.tokens for report in reports[len(POLICIES) :])


async def test_a_text_with_an_image_keeps_to_its_grammar(cloud: Cloud, model: LoadedModel) -> None:
    rule = foredraft.constraint_of(regex="(left|right), [0-9]{1,2} (m|cm)")
    async with connect(cloud, draft=model.folder) as edge:
        reports = [
            await written(edge, prompt_of(model, FIRST), [FIRST], WARM, policy=policy, constraint=rule, end_marks=True)
            for policy in ("cloud", "seed")
        ]
    assert reports[0].tokens == reports[1].tokens
    assert reports[0].text.split(", ")[0] in ("left", "right")


async def test_what_is_wrong_is_said_before_anything_is_sent(cloud: Cloud, model: LoadedModel, tmp_path: Path) -> None:
    image, drafters = image_of(FIRST), list[NgramDrafter]()

    def new_drafter() -> NgramDrafter:
        drafters.append(NgramDrafter())
        return drafters[-1]

    async with connect(cloud, draft=new_drafter) as edge:
        before = len(drafters)
        for images, prompt, said in (
            ([image], "no place", "0 places for images"),
            ([image], prompt_of(model, FIRST, SECOND), "2 places for images"),
            ([image] * 17, prompt_of(model, *[FIRST] * 17), "17 images; a text may have 16"),
        ):
            with pytest.raises(ConfigError, match=said):
                edge.generate(prompt, images=images)
        with pytest.raises(ConfigError, match="cannot be recorded"):
            edge.generate(prompt_of(model, FIRST), images=[image], record=tmp_path / "r.fdr")
        assert len(drafters) == before
    assert cloud.service.counters.sessions == 0


async def test_an_image_for_a_model_without_eyes_is_refused() -> None:
    from api.clouds import cloud as blind_cloud

    async with blind_cloud() as cloud, connect(cloud) as edge:
        with pytest.raises(ConfigError, match="sees no images"):
            edge.generate("x", images=[image_of(FIRST)])


async def test_a_key_has_its_bytes_of_images_a_minute(model: LoadedModel) -> None:
    keys = Keys({"ada": Key(name="ada", hash=hash_of("a"), image_bytes_per_minute=100)})
    target = TorchTarget(model, PlainHeads(model), cache_bytes=1 << 20)
    served = Cloud(target, Tokenizer.from_folder(model.folder), keys=keys)
    async with served as cloud, connect(cloud, api_key="a", retry=Retry(attempts=0)) as edge:
        assert (await written(edge, prompt_of(model, FIRST), [FIRST], WARM)).new_tokens == LENGTH
        assert (await written(edge, prompt_of(model, FIRST), [FIRST], WARM)).image_bytes == 0  # and costs nothing
        with pytest.raises(RefusedError, match=r"100 bytes of images a minute \(limit: image_bytes_per_minute\)"):
            await written(edge, prompt_of(model, SECOND), [SECOND], WARM)


async def test_an_image_that_breaks_on_its_way_is_refused_and_the_server_goes_on(
    cloud: Cloud, model: LoadedModel
) -> None:
    broken = EncodedImage(FIRST[:120], (84, 56))  # as another edge might send it
    async with connect(cloud) as edge:
        generation = edge.generate(prompt_of(model, FIRST), images=[broken])
        with pytest.raises(RefusedError, match="the image is broken"):
            await generation.finish()
        assert (await written(edge, prompt_of(model, FIRST), [FIRST], WARM)).new_tokens == LENGTH
