"""A server that means harm, as an edge meets it before any text: each time a clear end, within bounds."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from foredraft.api.cloud import Cloud
from foredraft.api.edge import connect
from foredraft.engines.scripted import ScriptedTarget
from foredraft.errors import ModelError, ProtocolError, UnreachableError
from foredraft.links import websocket
from foredraft.links.address import CHAT_PATH, SESSION_PATH, TOKENIZER_PATH
from foredraft.links.model_files import MAX_TOKENIZER_BYTES, fetch_chat_card, fetch_tokenizer
from foredraft.text import fetched_tokenizer
from foredraft.text.chat_card import MAX_CARD_BYTES
from foredraft.text.tokenizer import Tokenizer, tokenizer_digest
from text.hostile_tokenizers import split, wide

DIGEST = "0" * 32
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[str]:
    """A server that answers everything an edge asks for like this."""
    app = web.Application()
    for path in (f"{TOKENIZER_PATH}/{{digest}}", CHAT_PATH, SESSION_PATH, "elsewhere"):
        app.router.add_get(f"/{path}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


async def test_nobody_is_asked_but_whoever_was_named() -> None:
    asked: list[tuple[str, bool]] = []

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        asked.append((request.path, "Authorization" in request.headers))
        raise web.HTTPFound("/elsewhere")

    async with answering(elsewhere) as url:
        with pytest.raises(UnreachableError, match="HTTP 302"):
            await fetch_tokenizer(url, DIGEST, "secret")
        with pytest.raises(UnreachableError, match="HTTP 302"):
            await fetch_chat_card(url, "secret")
        with pytest.raises(ProtocolError, match="HTTP 302"):
            await websocket.connect(url, api_key="secret")
    assert "/elsewhere" not in [path for path, _ in asked]


async def test_few_bytes_do_not_unpack_to_many() -> None:
    bomb = gzip.compress(bytes(2 * MAX_TOKENIZER_BYTES))
    assert len(bomb) < 200_000

    async def packed(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with answering(packed) as url:
        with pytest.raises(ProtocolError, match="another tokenizer"):  # the packed bytes themselves, and no others
            await fetch_tokenizer(url, DIGEST)
        with pytest.raises(ProtocolError, match="not a description of a chat model"):
            await fetch_chat_card(url)


async def test_a_file_without_end_is_given_up_at_its_bound() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(1 << 16))
                sent += 1 << 16
        except ConnectionError:
            return response

    async with answering(endless) as url:
        with pytest.raises(ProtocolError, match="larger than"):
            await fetch_chat_card(url)
    assert sent < 4 * MAX_CARD_BYTES


async def test_a_tokenizer_that_is_what_was_promised_but_fills_the_memory_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fetched_tokenizer, "MAX_MEMORY_BYTES", 256 << 20)
    bomb = wide(20_000)

    async def promised(request: web.Request) -> web.StreamResponse:
        return web.Response(body=bomb)

    async with answering(promised) as url:
        with pytest.raises(ModelError, match="takes more than 256 MB"):
            await fetch_tokenizer(url, tokenizer_digest(bomb))
    assert not (tmp_path / "foredraft").exists()


async def test_a_text_that_a_servers_tokenizer_never_ends_with_is_an_error_and_the_edge_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetched_tokenizer, "MAX_ENCODE_S", 1.0)
    served = Tokenizer(split("a*a*[!?]|."))
    target = ScriptedTarget(lambda position: position % 7, vocab_size=28, tokenizer_digest=served.digest)
    async with Cloud(target, served) as cloud, cloud.listen() as url, connect(url, draft="ngram") as edge:
        with pytest.raises(ModelError, match="takes more than 1 s"):
            edge.generate("a" * 4000)
        report = await edge.generate("b c", max_new_tokens=4).finish()
        assert len(report.tokens) == 4


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        await asyncio.Event().wait()
        return response

    async with answering(silent) as url:
        with pytest.raises(UnreachableError, match="timed out"):
            await fetch_tokenizer(url, DIGEST, timeout_s=0.2)
