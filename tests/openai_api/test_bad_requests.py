"""Whatever a client sends: an error in OpenAI's form that names the parameter, and the server goes on."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

import foredraft
from api import clouds
from foredraft.openai_api import exchange, routes
from foredraft.openai_api.errors import ApiError
from foredraft.openai_api.images import ImageSource
from foredraft.openai_api.requests import chat_request
from foredraft.openai_api.server import EdgeServer
from foredraft.server.door import serving
from foredraft.text.chat_card import ChatCard
from openai_api.test_official_clients import CARD, edge_server

HELLO = [{"role": "user", "content": "Hello"}]
SCHEMA_PATH = "response_format.json_schema"
STRICT = {"type": "function", "function": {"name": "go", "strict": True}}
OLD_CALL = {"role": "assistant", "content": "", "function_call": {"name": "go", "arguments": "{}"}}
NAMELESS = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"arguments": "{}"}}]}
CHAT, COMPLETIONS = "chat/completions", "completions"


def nested(levels: int) -> dict[str, Any]:
    """An object in an object in an object."""
    said: dict[str, Any] = {}
    for _ in range(levels):
        said = {"a": said}
    return said


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
        (CHAT, b'{"messages": "\xff"}', None, "not JSON"),
        (CHAT, {}, "messages", "at least one message"),
        (CHAT, {"messages": []}, "messages", "at least one message"),
        (CHAT, {"messages": "hello"}, "messages", "must be a list"),
        (CHAT, {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "'robot'"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].image_url.url",
            "takes text alone",
        ),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages[0].content[0].type",
            "taken are text and images",
        ),
        (
            CHAT,
            {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
            "taken are text",
        ),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].image_url.url",
            "missing",
        ),
        (CHAT, {"messages": HELLO, "n": 1000}, "n", "1 to 16, not 1000"),
        (CHAT, {"messages": HELLO, "n": 10**400}, "n", "1 to 16, not 1000"),
        (CHAT, {"messages": HELLO, "temperature": 10**400}, "temperature", "must be a number"),
        (CHAT, {"messages": HELLO, "metadata": nested(200)}, None, "deeper than 128"),
        (CHAT, {"messages": HELLO, "response_format": nested(200)}, None, "deeper than 128"),
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
        (CHAT, {"messages": HELLO, "response_format": {"type": "yaml"}}, "response_format.type", "must be text"),
        (CHAT, {"messages": HELLO, "response_format": {"type": "json_schema"}}, SCHEMA_PATH, "must be an object"),
        (CHAT, {"messages": HELLO, "response_format": "json"}, "response_format", "must be an object"),
        (CHAT, {"messages": HELLO, "structured_outputs": {}}, "structured_outputs", "one of json, regex, grammar"),
        (CHAT, {"messages": HELLO, "structured_outputs": {"regex": 7}}, "structured_outputs", "must be a string"),
        (CHAT, {"messages": HELLO, "structured_outputs": {"regex": "a", "json": {}}}, "structured_outputs", "one of"),
        (
            CHAT,
            {"messages": HELLO, "structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "structured_outputs",
            "give one",
        ),
        (COMPLETIONS, {"prompt": "a", "structured_outputs": {"regex": "a" * 70_000}}, "structured_outputs", "65536"),
        (CHAT, {"messages": HELLO, "tool_choice": "required"}, "tool_choice", "'auto' or 'none'"),
        (CHAT, {"messages": HELLO, "tools": [{"type": "function"}]}, "tools[0].function", "a name"),
        (CHAT, {"messages": HELLO, "reasoning_effort": "high"}, "reasoning_effort", "not supported"),
        (CHAT, {"messages": HELLO, "foredraft": {"polcy": "sync"}}, "foredraft.polcy", "not supported"),
        (CHAT, {"messages": HELLO, "model": 7}, "model", "must be a string"),
        (CHAT, {"messages": HELLO, "max_tokens": 4, "max_completion_tokens": 5}, "max_tokens", "contradict"),
        (CHAT, {"messages": HELLO, "service_tier": "flex"}, "service_tier", "not supported"),
        (CHAT, {"messages": HELLO, "parallel_tool_calls": False}, "parallel_tool_calls", "not supported"),
        (CHAT, {"messages": HELLO, "tools": [STRICT]}, "tools[0].function.strict", "holds the model to the schema"),
        (CHAT, {"messages": [*HELLO, OLD_CALL]}, "messages[1].function_call", "not supported"),
        (CHAT, {"messages": [*HELLO, NAMELESS]}, "messages[1].tool_calls[0].function.name", "missing"),
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


@pytest.mark.parametrize(
    "extra",
    [
        {"user": "me", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k"},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logprobs": False, "logit_bias": {}, "store": False},
        {"response_format": {"type": "text"}, "parallel_tool_calls": True, "service_tier": "auto", "prediction": None},
        {"temperature": None, "stop": None, "tools": None, "seed": None, "reasoning_effort": None},
        {"max_completion_tokens": 3, "messages": [*HELLO, {"role": "assistant", "content": "a", "audio": None}]},
    ],
)
async def test_what_changes_no_text_is_taken(base: str, extra: dict[str, Any]) -> None:
    async with aiohttp.ClientSession() as http:
        body = {"messages": HELLO, "max_tokens": 3} | extra
        async with http.post(f"{base}/{CHAT}", json=body) as response:
            assert response.status == 200, await response.text()


def test_an_image_that_is_not_base64_is_the_clients_error() -> None:
    for body in ("!", "a", "\N{LATIN SMALL LETTER E WITH ACUTE}"):
        with pytest.raises(ApiError, match="is not base64"):
            ImageSource().load([(f"data:image/png;base64,{body}", "url")])


@pytest.mark.parametrize("url", ["file:///a%00b", "file://["])
def test_a_url_that_names_no_file_is_the_clients_error(url: str, tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="names no file"):
        ImageSource(tmp_path).load([(url, "url")])


def test_arguments_that_are_no_json_stay_as_they_were_said() -> None:
    for said in ("go", "[" * 5_000):
        call = {"id": "1", "type": "function", "function": {"name": "go", "arguments": said}}
        body = {"messages": [*HELLO, {"role": "assistant", "tool_calls": [call]}]}
        (taken,) = chat_request(json.dumps(body).encode()).messages[1]["tool_calls"]
        assert taken["function"]["arguments"] == said


async def test_a_body_that_is_not_what_its_encoding_says_is_the_clients_error(base: str) -> None:
    async with aiohttp.ClientSession() as http:
        headers = {"Content-Encoding": "gzip"}
        async with http.post(f"{base}/{CHAT}", data=b"not compressed", headers=headers) as response:
            assert response.status == 400
            assert "cannot be read" in (await response.json())["error"]["message"]


async def test_a_body_that_does_not_come_is_not_waited_for(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_BODY_S", 0.2)
    address = URL(base)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert b" 408 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_a_fault_of_our_own_is_told_in_openais_form_and_logged(
    base: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("of our own")

    with monkeypatch.context() as patched:
        patched.setattr(routes, "render", broken)
        async with aiohttp.ClientSession() as http, http.post(f"{base}/{CHAT}", json={"messages": HELLO}) as response:
            assert response.status == 500
            error = (await response.json())["error"]
    assert error["type"] == "server_error"
    assert "log says why" in error["message"]
    assert "of our own" in caplog.text


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
        ("{{ " + "-" * 300 + "messages }}", "the model's chat template"),  # and why: compiling it takes seconds
        ("{{ 1" + "0" * 5_000 + " }}", "cannot be read"),
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


async def test_of_many_that_come_at_once_as_many_are_taken_as_there_is_room_for() -> None:
    async with edge_server(running=1, waiting=2) as (url, _), aiohttp.ClientSession() as http:

        async def ask() -> int:
            async with http.post(f"{url}/{CHAT}", json={"messages": HELLO, "max_tokens": 200}) as response:
                return response.status

        assert sorted(await asyncio.gather(*(ask() for _ in range(12)))) == [200] * 3 + [429] * 9
        async with http.post(f"{url}/{CHAT}", json={"messages": HELLO, "n": 4}) as response:
            assert response.status == 400
            assert "this server takes 3" in (await response.json())["error"]["message"]


async def test_a_deadline_counts_the_wait_for_a_place() -> None:
    async with edge_server(running=1, waiting=1) as (url, cloud), aiohttp.ClientSession() as http:
        long = asyncio.create_task(http.post(f"{url}/{CHAT}", json={"messages": HELLO, "max_tokens": 10**6}))
        while not cloud.service.counters.active:  # noqa: ASYNC110 - counters tell nobody
            await asyncio.sleep(0.01)
        asked = {"messages": HELLO, "foredraft": {"deadline_s": 0.2}}
        async with asyncio.timeout(10), http.post(f"{url}/{CHAT}", json=asked) as response:
            said = (await response.json())["choices"][0]
        long.cancel()
    assert (said["finish_reason"], said["message"]["content"]) == ("length", "")


@asynccontextmanager
async def leaving_cloud(
    retry: foredraft.Retry, *, local: bool = False
) -> AsyncIterator[tuple[str, foredraft.Cloud, Callable[[], Awaitable[None]]]]:
    """An edge's server, and its cloud, which is there until it is told to leave."""
    async with clouds.cloud() as cloud:
        listening = cloud.listen()
        address = await listening.__aenter__()

        async def leave() -> None:
            await listening.__aexit__(None, None, None)

        async with (
            foredraft.connect(address, draft=clouds.drafter, retry=retry) as edge,
            serving(EdgeServer(edge, CARD, local=local)) as url,
        ):
            yield f"{url}/v1", cloud, leave


async def some_text(cloud: foredraft.Cloud) -> None:
    """Wait until a text is on its way."""
    while cloud.service.counters.tokens < 20:  # noqa: ASYNC110 - counters tell nobody
        await asyncio.sleep(0.001)


QUICK = foredraft.Retry(attempts=1, first_s=0.01)


async def test_the_edge_without_its_cloud_says_503_and_when_to_come_again() -> None:
    async with leaving_cloud(QUICK) as (url, _, leave), aiohttp.ClientSession() as http:
        await leave()
        for stream in (False, True):
            asked = {"messages": HELLO, "max_tokens": 3, "stream": stream}
            async with http.post(f"{url}/{CHAT}", json=asked) as response:
                assert response.status == 503
                assert "Retry-After" in response.headers
                assert "out of reach" in (await response.json())["error"]["message"]


@pytest.mark.parametrize("asked", [{}, {"foredraft": {"deadline_s": 0.5}}])
async def test_where_it_is_allowed_the_drafts_own_words_end_an_answer_and_are_marked(asked: dict[str, Any]) -> None:
    retry = foredraft.Retry(attempts=1000, first_s=0.01, most_s=0.05) if asked else QUICK
    prompt = clouds.TEXT[:13]
    body = {"prompt": prompt, "max_tokens": 10**6} | asked
    async with leaving_cloud(retry, local=True) as (url, cloud, leave), aiohttp.ClientSession() as http:
        answer = asyncio.create_task(http.post(f"{url}/{COMPLETIONS}", json=body))
        await some_text(cloud)
        await leave()
        response = await answer
        said = await response.json()
    unverified = said["foredraft"]["unverified_tokens"]
    assert response.headers["x-foredraft-unverified"] == str(unverified)
    assert unverified > 0
    start, verified = len(prompt.encode()), said["usage"]["completion_tokens"]
    whole = clouds.text_between(start, start + verified - 4).rstrip("\N{REPLACEMENT CHARACTER}")  # to a whole character
    assert said["choices"][0]["text"].startswith(whole)
    assert len(said["choices"][0]["text"].encode()) > verified


async def test_a_request_with_tools_never_ends_with_the_drafts_words() -> None:
    tool = {"type": "function", "function": {"name": "drive", "parameters": {"type": "object"}}}
    body = {"messages": HELLO, "tools": [tool], "max_tokens": 10**6}
    async with leaving_cloud(QUICK, local=True) as (url, cloud, leave), aiohttp.ClientSession() as http:
        answer = asyncio.create_task(http.post(f"{url}/{CHAT}", json=body))
        await some_text(cloud)
        await leave()
        assert (await answer).status == 503


async def test_a_deadline_ends_the_answer_with_what_there_is(base: str) -> None:
    asked = {"messages": HELLO, "max_tokens": 10**6, "foredraft": {"deadline_s": 0.3}}
    async with aiohttp.ClientSession() as http, http.post(f"{base}/{CHAT}", json=asked) as response:
        said = (await response.json())["choices"][0]
    assert said["finish_reason"] == "length"
    assert said["message"]["content"]


async def test_at_a_deadline_the_draft_may_finish_the_answer_and_its_tokens_are_counted(base: str) -> None:
    ours = {"deadline_s": 0.3, "at_deadline": "local"}
    body = {"prompt": clouds.TEXT[:13], "max_tokens": 10**5, "foredraft": ours}
    async with aiohttp.ClientSession() as http, http.post(f"{base}/{COMPLETIONS}", json=body) as response:
        said = await response.json()
    unverified = said["foredraft"]["unverified_tokens"]
    assert response.headers["x-foredraft-unverified"] == str(unverified)
    assert 0 < unverified == 10**5 - said["usage"]["completion_tokens"]
    assert said["choices"][0]["finish_reason"] == "length"


async def test_a_missed_deadline_is_a_status_where_that_is_wanted(base: str) -> None:
    body = {"messages": HELLO, "max_tokens": 10**6, "foredraft": {"deadline_s": 0.2, "at_deadline": "error"}}
    async with aiohttp.ClientSession() as http, http.post(f"{base}/{CHAT}", json=body) as response:
        assert response.status == 504
        assert "not complete within" in (await response.json())["error"]["message"]


async def test_a_deadline_that_passes_in_line_is_the_same_error() -> None:
    async with edge_server(running=1, waiting=1) as (url, cloud), aiohttp.ClientSession() as http:
        long = asyncio.create_task(http.post(f"{url}/{CHAT}", json={"messages": HELLO, "max_tokens": 10**6}))
        while not cloud.service.counters.active:  # noqa: ASYNC110 - counters tell nobody
            await asyncio.sleep(0.01)
        asked = {"messages": HELLO, "foredraft": {"deadline_s": 0.2, "at_deadline": "error"}}
        async with asyncio.timeout(10), http.post(f"{url}/{CHAT}", json=asked) as response:
            assert response.status == 504
            assert "in line" in (await response.json())["error"]["message"]
        long.cancel()


@pytest.mark.parametrize(
    ("ours", "more", "said"),
    [
        ({"at_deadline": "later"}, {}, "'later' is none of stop, local, error"),
        ({"deadline_s": -1}, {}, "deadline_s"),
        ({"deadline_s": 0.5, "at_deadline": "local"}, {"tools": True}, "a draft calls none"),
    ],
)
async def test_what_is_wrong_with_a_deadline_is_said(
    base: str, ours: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    tool = {"type": "function", "function": {"name": "drive", "parameters": {"type": "object"}}}
    body = {"messages": HELLO, "foredraft": ours} | ({"tools": [tool]} if more else {})
    async with aiohttp.ClientSession() as http, http.post(f"{base}/{CHAT}", json=body) as response:
        assert response.status == 400
        assert said in (await response.json())["error"]["message"]
