"""Images by the command line, in a conversation, and through OpenAI's client: the same texts, and nothing fetched."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from engines import tiny_eyes
from engines.torch_reference import PlainHeads
from foredraft.api.cloud import Cloud
from foredraft.api.conversation import Conversation, prompt_about
from foredraft.api.edge import Edge, connect
from foredraft.cli.main import app
from foredraft.engines.torch_model import LoadedModel, load_model
from foredraft.engines.torch_target import TorchTarget
from foredraft.images import image_of
from foredraft.openai_api.images import ImageSource
from foredraft.openai_api.server import EdgeServer
from foredraft.server.door import serving
from foredraft.text.tokenizer import Tokenizer

FIRST, SECOND = tiny_eyes.picture(84, 56, seed=1), tiny_eyes.picture(84, 112, seed=2, kind="JPEG")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(tiny_eyes.save(tmp_path_factory.mktemp("eyes") / "qwen2_vl"))


@pytest_asyncio.fixture
async def url(model: LoadedModel) -> AsyncIterator[str]:
    target = TorchTarget(model, PlainHeads(model), cache_bytes=1 << 20)
    async with Cloud(target, Tokenizer.from_folder(model.folder)) as cloud, cloud.listen() as url:
        yield url


@pytest_asyncio.fixture
async def edge(url: str) -> AsyncIterator[Edge]:
    async with connect(url) as edge:
        yield edge


async def answer(edge: Edge, question: str, *images: bytes) -> Any:
    prompt = await prompt_about(edge, question, len(images))
    shown = [image_of(image) for image in images]
    return await edge.generate(prompt, images=shown, max_new_tokens=12, end_marks=False).finish()


def part(data: bytes, kind: str = "png") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{base64.b64encode(data).decode()}"}}


def asked(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "what is it?"}]}]


async def test_openais_client_shows_images_to_the_edge_and_to_the_server(url: str, edge: Edge, tmp_path: Path) -> None:
    wanted = await answer(edge, "what is it?", FIRST, SECOND)
    (tmp_path / "second one.jpg").write_bytes(SECOND)
    file = {"type": "image_url", "image_url": {"url": f"file://{tmp_path}/second%20one.jpg", "detail": "low"}}
    door = EdgeServer(edge, await edge.chat_card(), images=ImageSource(tmp_path))
    async with serving(door) as device:
        for base, parts in (
            (device, (part(FIRST), file)),
            (device, (part(FIRST), part(SECOND, "jpeg"))),
            (url, (part(FIRST), part(SECOND, "jpeg"))),
        ):
            async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="x") as client:
                said = await client.chat.completions.create(
                    model=(await client.models.list()).data[0].id,
                    messages=asked(*parts),  # type: ignore[arg-type]
                    max_tokens=12,
                    temperature=0,
                    extra_body={"ignore_eos": True},
                )
            assert said.choices[0].message.content == wanted.text
            assert said.usage is not None
            assert said.usage.prompt_tokens == wanted.prompt_tokens


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:1/image.png", "nothing is fetched"),
        ("https://example.com/image.png", "nothing is fetched"),
        ("file:///etc/passwd", "not in the folder"),
        ("file://{folder}/../secret.png", "not in the folder"),
        ("file://{folder}/%2e%2e/secret.png", "not in the folder"),
        ("file://{folder}/none.png", "cannot be read"),
        ("data:image/png;base64,%%%", "not base64"),
        ("data:image/png,abc", "in base64"),
        ("data:image/png;base64,AAAA", "no image of the formats"),
    ],
)
async def test_what_is_no_image_of_ours_is_refused_by_its_name(
    edge: Edge, tmp_path: Path, address: str, said: str
) -> None:
    (tmp_path / "secret.png").write_bytes(FIRST)
    folder = tmp_path / "images"
    folder.mkdir()
    bad = {"type": "image_url", "image_url": {"url": address.format(folder=folder)}}
    door = EdgeServer(edge, await edge.chat_card(), images=ImageSource(folder))
    async with serving(door) as device, openai.AsyncOpenAI(base_url=f"{device}/v1", api_key="x") as client:
        with pytest.raises(openai.BadRequestError, match=said) as refused:
            await client.chat.completions.create(model="qwen2_vl", messages=asked(part(FIRST), bad))  # type: ignore[arg-type]
        assert refused.value.param == "messages[0].content[1].image_url.url"


async def test_without_a_folder_no_file_is_read_and_a_hundred_images_are_too_many(edge: Edge) -> None:
    door = EdgeServer(edge, await edge.chat_card())
    file = {"type": "image_url", "image_url": {"url": "file:///etc/hostname"}}
    async with serving(door) as device, openai.AsyncOpenAI(base_url=f"{device}/v1", api_key="x") as client:
        for parts, said in (([file], "nothing is fetched"), ([part(FIRST)] * 100, "100 images; a text may have 16")):
            with pytest.raises(openai.BadRequestError, match=said):
                await client.chat.completions.create(model="qwen2_vl", messages=asked(*parts))  # type: ignore[arg-type]


async def test_a_conversation_sends_an_image_once_and_goes_on_about_it(edge: Edge) -> None:
    conversation = Conversation(edge, await edge.chat_card())
    reports = []
    for question, images in (("what is it?", [image_of(FIRST)]), ("and this?", [image_of(SECOND)]), ("both?", [])):
        generation = conversation.ask(question, images, max_new_tokens=8, temperature=0.0)
        reports.append(await generation.finish())
        conversation.answered(generation)
    assert [report.image_bytes for report in reports] == [len(FIRST), len(SECOND), 0]
    assert reports[0].prompt_tokens < reports[1].prompt_tokens < reports[2].prompt_tokens
    assert [part["type"] for part in conversation.messages[0]["content"]] == ["image", "text"]


async def test_generate_takes_images_and_makes_them_smaller(url: str, edge: Edge, tmp_path: Path) -> None:
    file, broken = tmp_path / "seen.png", tmp_path / "broken.png"
    file.write_bytes(FIRST)
    broken.write_bytes(FIRST[:90])
    wanted = await answer(edge, "what is it?", FIRST)
    stop = wanted.tokens.index(tiny_eyes.EOS) + 1 if tiny_eyes.EOS in wanted.tokens else None

    async def generate(image: Path, *more: str) -> Any:
        words = ["generate", "--server", url, "--prompt", "what is it?", "--image", str(image)]
        return await asyncio.to_thread(CliRunner().invoke, app, [*words, "--max-new-tokens", "12", *more])

    said = json.loads((await generate(file, "--json")).stdout)
    assert said["tokens"] == wanted.tokens[:stop]
    assert said["image_bytes"] == len(FIRST)
    smaller = await generate(file, "--image-max-side", "56", "--image-quality", "60")
    assert "bytes sent, seen after" in smaller.stderr
    refused = await generate(broken)
    assert refused.exit_code != 0
    assert "the image is broken" in str(refused.exception) + refused.stderr
