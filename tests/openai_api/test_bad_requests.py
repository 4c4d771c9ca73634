"""Whatever a client sends: an error in OpenAI's form that names the parameter, and the server goes on."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

import foredraft
from api import clouds
from foredraft.openai_api.server import EdgeServer
from foredraft.server.door import serving
from foredraft.text.chat_card import ChatCard
from openai_api.test_official_clients import CARD, edge_server

HELLO = [{"role": "user", "content": "Hello"}]
CHAT, COMPLETIONS = "chat/completions", "completions"


@pytest_asyncio.fixture
async def base() -> AsyncIterator[str]:
    async with edge_server() as (url, _):
        yield url


async def post(base: str, path: str, body: bytes | dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The status and the error; afterwards an honest request is answered as ever."""
    data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{base}/{path}", data=data) as response:
            status, said = response.status, await response.json()
        async with http.post(f"{base}/{CHAT}", json={"messages": HELLO, "max_tokens": 3}) as response:
            assert response.status == 200
    return status, said["error"]


@pytest.mark.parametrize(
    ("path", "body", "param", "said"),
    [
        (CHAT, b"{", None, "not JSON"),
        (CHAT, b"[" * 100_000, None, "not JSON"),
        (CHAT, b"[1]", None, "the body must be an object"),
        (CHAT, {}, "messages", "at least one message"),
        (CHAT, {"messages": []}, "messages", "at least one message"),
        (CHAT, {"messages": "hello"}, "messages", "must be a list"),
        (CHAT, {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "'robot'"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
            "takes text alone",
        ),
        (CHAT, {"messages": HELLO, "n": 1000}, "n", "1 to 16, not 1000"),
        (CHAT, {"messages": HELLO, "max_tokens": -5}, "max_tokens", "not -5"),
        (CHAT, {"messages": HELLO, "max_tokens": 2.5}, "max_tokens", "must be an integer"),
        (CHAT, {"messages": HELLO, "temperature": "hot"}, "temperature", "must be a number"),
        (CHAT, {"messages": HELLO, "temperature": -1}, "temperature", "0 to 100"),
        (CHAT, {"messages": HELLO, "top_p": 0}, "top_p", "not 0"),
        (CHAT, {"messages": HELLO, "stream": "yes"}, "stream", "true or false"),
        (CHAT, {"messages": HELLO, "stream_options": {"include_usage": True}}, "stream_options", "needs stream"),
        (CHAT, {"messages": HELLO, "stop": [1]}, "stop", "list of strings"),
        (CHAT, {"messages": HELLO, "stop": [""]}, "stop", "1 to 1024 characters"),
        (CHAT, {"messages": HELLO, "logprobs": 3}, "logprobs", "true or false"),
        (CHAT, {"messages": HELLO, "top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        (CHAT, {"messages": HELLO, "logprobs": True, "top_logprobs": 21}, "top_logprobs", "0 to 20"),
        (COMPLETIONS, {"prompt": "a", "logprobs": 2, "echo": True}, "echo", "logprobs of a prompt"),
        (CHAT, {"messages": HELLO, "presence_penalty": 0.5}, "presence_penalty", "not supported"),
        (CHAT, {"messages": HELLO, "logit_bias": {"5": 100}}, "logit_bias", "not supported"),
        (CHAT, {"messages": HELLO, "response_format": {"type": "json_object"}}, "response_format", "not supported"),
        (CHAT, {"messages": HELLO, "tool_choice": "required"}, "tool_choice", "'auto' or 'none'"),
        (CHAT, {"messages": HELLO, "tools": [{"type": "function"}]}, "tools[0].function", "a name"),
        (CHAT, {"messages": HELLO, "reasoning_effort": "high"}, "reasoning_effort", "not supported"),
        (CHAT, {"messages": HELLO, "foredraft": {"polcy": "sync"}}, "foredraft.polcy", "not supported"),
        (CHAT, {"messages": HELLO, "model": 7}, "model", "must be a string"),
        (COMPLETIONS, {}, "prompt", "must be a string"),
        (COMPLETIONS, {"prompt": ""}, "prompt", "empty"),
        (COMPLETIONS, {"prompt": [1, -2]}, "prompt", "-2 in prompt is negative"),
        (COMPLETIONS, {"prompt": [1, 300]}, "prompt", "outside the vocabulary of 257"),
        (COMPLETIONS, {"prompt": ["a"] * 100}, "prompt", "at most 64"),
        (COMPLETIONS, {"prompt": ["a"] * 60, "n": 2}, "prompt", "at most 64 texts"),
        (COMPLETIONS, {"prompt": "a", "best_of": 3}, "best_of", "not supported"),
        (COMPLETIONS, {"prompt": "a", "suffix": "b"}, "suffix", "not supported"),
        (COMPLETIONS, {"prompt": "a", "messages": HELLO}, "messages", "not supported"),
    ],
)
async def test_it_is_refused_by_the_name_of_the_parameter(
    base: str, path: str, body: bytes | dict[str, Any], param: str | None, said: str
) -> None:
    status, error = await post(base, path, body)
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert said in error["message"]


async def test_a_body_of_50_mb_is_refused_before_it_is_read(base: str) -> None:
    status, error = await post(base, CHAT, b'{"messages": "' + b"x" * (50 << 20) + b'"}')
    assert (status, error["type"]) == (413, "invalid_request_error")
    assert "larger than" in error["message"]


async def test_a_path_and_a_method_that_there_is_not_are_openais_errors(base: str) -> None:
    assert (await post(base, "embeddings", {}))[0] == 404
    async with aiohttp.ClientSession() as http, http.get(f"{base}/{CHAT}") as response:
        assert (response.status, (await response.json())["error"]["type"]) == (405, "invalid_request_error")


async def test_a_prompt_longer_than_the_context_says_so() -> None:
    cloud = foredraft.Cloud(clouds.target(context=64), clouds.TOKENIZER)
    async with cloud, foredraft.connect(cloud) as edge, serving(EdgeServer(edge, CARD)) as url:
        status, error = await post(f"{url}/v1", COMPLETIONS, {"prompt": "x" * 100})
    assert (status, error["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "no chat template; give it a prompt of your own"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[5].content }}", "does not take this conversation"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% for", "cannot be read"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxxx{% endfor %}{% endfor %}", "more than"),
    ],
)
async def test_a_template_that_fails_is_the_requests_error(template: str | None, said: str) -> None:
    async with edge_server(ChatCard(name="odd", template=template)) as (url, _), aiohttp.ClientSession() as http:
        async with http.post(f"{url}/{CHAT}", json={"messages": HELLO}) as response:
            assert response.status == 400
            assert said in (await response.json())["error"]["message"]
        async with http.post(f"{url}/{COMPLETIONS}", json={"prompt": "go on"}) as response:
            assert response.status == 200


async def test_one_more_text_than_there_is_room_for_is_told_to_come_again() -> None:
    async with edge_server(running=1, waiting=1) as (url, cloud), aiohttp.ClientSession() as http:

        async def ask(tokens: int) -> int:
            async with http.post(f"{url}/{CHAT}", json={"messages": HELLO, "max_tokens": tokens}) as response:
                if response.status == 429:
                    assert int(response.headers["Retry-After"]) >= 1
                return response.status

        long = asyncio.create_task(ask(10**6))
        while not cloud.service.counters.active:  # noqa: ASYNC110 - counters tell nobody
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(ask(3))
        await asyncio.sleep(0.1)
        assert await ask(3) == 429
        async with http.get(url.removesuffix("/v1") + "/ready") as response:
            assert response.status == 503
        long.cancel()
        assert await waiting == 200
        assert await ask(3) == 200


async def test_the_edge_without_its_cloud_says_503_and_when_to_come_again() -> None:
    quick = foredraft.Retry(attempts=1, first_s=0.01)
    async with clouds.cloud() as cloud:
        listening = cloud.listen()
        address = await listening.__aenter__()
        async with foredraft.connect(address, retry=quick) as edge, serving(EdgeServer(edge, CARD)) as url:
            await listening.__aexit__(None, None, None)
            for stream in (False, True):
                asked = {"messages": HELLO, "max_tokens": 3, "stream": stream}
                async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/{CHAT}", json=asked) as response:
                    assert response.status == 503
                    assert "Retry-After" in response.headers
                    assert "out of reach" in (await response.json())["error"]["message"]


async def test_a_deadline_ends_the_answer_with_what_there_is(base: str) -> None:
    asked = {"messages": HELLO, "max_tokens": 10**6, "foredraft": {"deadline_s": 0.3}}
    async with aiohttp.ClientSession() as http, http.post(f"{base}/{CHAT}", json=asked) as response:
        said = (await response.json())["choices"][0]
    assert said["finish_reason"] == "length"
    assert said["message"]["content"]
