"""What clients of OpenAI's interface send, and images."""

import asyncio
import base64
import io
import json
from contextlib import AsyncExitStack
from typing import Any, Final

import aiohttp
from PIL import Image

from api import clouds
from chaos.fuzz.forms import IMAGE, JSON
from chaos.fuzz.subject import UNSEEN, Subject
from foredraft.api.cloud import Cloud
from foredraft.api.edge import connect
from foredraft.errors import ForedraftError
from foredraft.images import image_of
from foredraft.openai_api.errors import ApiError
from foredraft.openai_api.images import ImageSource
from foredraft.openai_api.requests import ChatRequest, chat_request, completion_request
from foredraft.openai_api.server import EdgeServer
from foredraft.server.door import serving
from openai_api.test_official_clients import CARD

_CONTEXT: Final = 160
"""Of the cloud: no body asks for more than so many tokens."""


class Asking:
    """A server of OpenAI's interface over a scripted cloud, and a client of it; both run while a body is answered."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(UNSEEN.heard)
        self._stack = AsyncExitStack()
        self._url = ""

    async def _open(self) -> None:
        cloud = Cloud(clouds.target(context=_CONTEXT), clouds.TOKENIZER, new_drafter=clouds.drafter)
        await self._stack.enter_async_context(cloud)
        edge = await self._stack.enter_async_context(connect(cloud, draft=clouds.drafter))
        self._url = await self._stack.enter_async_context(serving(EdgeServer(edge, CARD, running=64)))
        self._http = await self._stack.enter_async_context(aiohttp.ClientSession())

    def read(self, data: bytes) -> None:
        """The body is refused by name, or answered."""
        for path, parse in (("chat/completions", chat_request), ("completions", completion_request)):
            try:
                asked = parse(data)
                if isinstance(asked, ChatRequest):
                    ImageSource(max_side=64).load(asked.images)
            except ApiError as error:
                json.dumps(error.body()).encode()
                error.response()
                continue
            self._loop.run_until_complete(self._post(path, data))
            UNSEEN.raised()

    async def _post(self, path: str, data: bytes) -> None:
        if not self._url:
            await self._open()
        async with asyncio.timeout(60), self._http.post(f"{self._url}/v1/{path}", data=io.BytesIO(data)) as response:
            said = await response.read()
        assert response.status != 500, f"status 500: {said[:500]!r}"

    def close(self) -> None:
        """End both."""
        self._loop.run_until_complete(self._stack.aclose())
        self._loop.close()


def subjects(asking: Asking) -> list[Subject]:
    """The subjects that are bodies and images."""
    images = [_encoded("PNG"), _encoded("PNG", exif=True), _encoded("JPEG", exif=True), _encoded("WEBP")]
    return [
        Subject("openai", JSON, [json.dumps(body).encode() for body in _bodies(images[0])], asking.read),
        Subject("image", IMAGE, images, _image, (ForedraftError,)),
    ]


def _image(data: bytes) -> None:
    small = image_of(data, 24)
    assert max(small.size) <= max(24, 1)
    assert image_of(small.data).size == small.size


def _encoded(kind: str, *, exif: bool = False) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = 6
    file = io.BytesIO()
    Image.linear_gradient("L").resize((40, 28)).convert("RGB").save(file, kind, **({"exif": tags} if exif else {}))
    return file.getvalue()


def _bodies(png: bytes) -> list[dict[str, Any]]:
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    tool = {"type": "function", "function": {"name": "go", "description": "x", "parameters": {"type": "object"}}}
    call = {"id": "1", "type": "function", "function": {"name": "go", "arguments": '{"a": 1}'}}
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": url, "detail": "low"}}]
    hello = {"role": "user", "content": "Grüße"}
    return [
        {"messages": [{"role": "system", "content": "Be brief."}, hello], "model": "boxer", "max_tokens": 4, "seed": 7},
        {
            "messages": [hello, {"role": "assistant", "content": None, "tool_calls": [call]},
                         {"role": "tool", "tool_call_id": "1", "name": "go", "content": "ok"}],
            "tools": [tool], "tool_choice": "auto", "n": 2, "temperature": 0.5, "top_p": 0.9, "top_k": 5,
        },
        {"messages": [{"role": "user", "content": parts}], "max_completion_tokens": 3},
        {
            "messages": [hello], "stream": True, "stream_options": {"include_usage": True}, "stop": ["x", "\n"],
            "logprobs": True, "top_logprobs": 2, "foredraft": {"policy": "seed:gamma=3", "deadline_s": 20.0,
                                                              "at_deadline": "stop"}, "user": "me",
        },
        {
            "messages": [hello], "max_tokens": 3, "response_format": {"type": "json_schema", "json_schema": {
                "name": "n", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}, "strict": True}},
        },
        {"messages": [hello], "max_tokens": 3, "structured_outputs": {"choice": ["a", "b"]}, "ignore_eos": True},
        {"prompt": "Zwölf", "max_tokens": 4, "echo": True, "n": 2, "presence_penalty": 0},
        {"prompt": [[1, 2, 3], [70, 80]], "max_tokens": 4, "logprobs": 2, "stream": True},
        {"prompt": [5, 6, 7], "stop": "x", "best_of": 1, "suffix": "", "logit_bias": {}},
    ]  # fmt: skip
