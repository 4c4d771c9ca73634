"""The real link and the HTTP server, over sockets, with peers that behave and peers that do not."""

import asyncio
import base64
import contextlib
import hashlib
import logging
import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import uvloop

from foredraft.bench.bytes_tokenizer import byte_tokenizer
from foredraft.errors import ConfigError, LinkClosedError, ProtocolError, RefusedError, UnreachableError
from foredraft.keys import Keys
from foredraft.links.memory import memory_link
from foredraft.links.model_files import fetch_tokenizer
from foredraft.links.websocket import connect
from foredraft.protocol.counters import Counters
from foredraft.protocol.messages import (
    MAX_MESSAGE_BYTES,
    Chain,
    Close,
    Drain,
    Grow,
    Hello,
    Message,
    Refused,
    encode,
    pack,
)
from foredraft.protocol.ports import Link, TargetCard
from foredraft.server.app import Server
from foredraft.server.bounds import Bounds
from foredraft.server.door import run_server, serving
from foredraft.server.listening import is_loopback, tls_context
from foredraft.text.tokenizer import tokenizer_digest

TOKENIZER = byte_tokenizer(300).json
DIGEST = tokenizer_digest(TOKENIZER)
CARD = TargetCard("model", DIGEST, vocab_size=100, context=64, layers=4, exits=(2,))
SMALL = Grow(1, (Chain(100, 2**63, pack([300] * 4)),))
LARGE = Hello(1, "x" * 100_000)


Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario to its end, on each of the loops."""

    def run_scenario(scenario: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(scenario, 30))

    return run_scenario


class Echo:
    """A service that sends everything back; Close(7) makes it fail, Close(8) makes it flood the peer."""

    def __init__(self) -> None:
        self.counters = Counters(tokens=12)
        self.links: list[Link] = []
        self.arrived: asyncio.Queue[Link] = asyncio.Queue()
        self.left: asyncio.Queue[Link] = asyncio.Queue()
        self.flooded = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def handle(self, link: Link) -> None:
        self.links.append(link)
        self.arrived.put_nowait(link)
        try:
            while True:
                await self.answer(link)
        except LinkClosedError:
            return
        finally:
            self.links.remove(link)
            self.left.put_nowait(link)

    def turn_out(self) -> None:
        """Its keys never change."""

    async def answer(self, link: Link) -> None:
        try:
            message = await link.receive()
        except ProtocolError as error:
            message = Refused(0, "invalid", str(error))
        if message == Close(7):
            raise ZeroDivisionError("a bug in the session")
        try:
            await link.send(message)
            while message == Close(8):
                await link.send(LARGE)
        except LinkClosedError:
            self.flooded.set()
            raise

    def make_room(self, links: Collection[Link]) -> bool:
        return False

    def drain(self, retry_after_s: float = 0.0) -> None:
        for link in self.links:
            self.tasks.append(asyncio.ensure_future(link.send(Drain(retry_after_s))))


@contextlib.asynccontextmanager
async def echo_server(
    *, api_key: str = "", bounds: Bounds | None = None, port: int = 0
) -> AsyncIterator[tuple[str, Echo]]:
    echo = Echo()
    server = Server(
        echo, card=CARD, tokenizer_json=TOKENIZER, keys=Keys.of(api_key), bounds=bounds or Bounds(grace_s=0.0)
    )
    async with serving(server, port=port) as url:
        yield url, echo


async def raw_connection(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def raw_websocket(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket whose frames we write ourselves."""
    reader, writer = await raw_connection(url)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /v1/session HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def frame(payload: bytes, opcode: int = 2) -> bytes:
    """A client's frame below 126 bytes, masked with zeros."""
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the connection ends, cleanly or not."""
    data = bytearray()
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(1 << 16):
            data += chunk
    return bytes(data)


async def echoes(url: str, message: Message = SMALL) -> bool:
    """Whether the server still serves."""
    link = await connect(url)
    try:
        await link.send(message)
        return await link.receive() == message
    finally:
        await link.close()


def test_messages_go_both_ways_and_both_ends_count_the_same_bytes(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server() as (url, echo):
            link = await connect(url)
            for message in (SMALL, LARGE, Hello(1, "x" * 200)):
                await link.send(message)
                assert await link.receive() == message
            payloads = [len(encode(message)) for message in (SMALL, LARGE, Hello(1, "x" * 200))]
            assert link.bytes_sent == sum(payloads) + (2 + 10 + 4) + 3 * 4
            assert link.bytes_received == sum(payloads) + (2 + 10 + 4)
            assert echo.links[0].bytes_received == link.bytes_sent
            assert echo.links[0].bytes_sent == link.bytes_received
            await link.close()

    run(scenario())


def test_a_message_of_the_largest_size_passes_and_a_larger_one_does_not(run: Run) -> None:
    async def scenario() -> None:
        overhead = len(encode(Hello(1, "x" * 100_000))) - 100_000
        largest = Hello(1, "x" * (MAX_MESSAGE_BYTES - overhead))
        async with echo_server() as (url, _):
            assert await echoes(url, largest)
            link = await connect(url)
            with pytest.raises(ProtocolError, match="bytes"):
                await link.send(Hello(1, "x" * MAX_MESSAGE_BYTES))
            await link.close()

    run(scenario())


def test_closing_ends_pending_receives_on_both_ends_and_can_be_repeated(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server() as (url, echo):
            link = await connect(url)
            await link.send(SMALL)
            await link.receive()
            pending = asyncio.create_task(link.receive())
            await asyncio.sleep(0)
            await link.close()
            await link.close()
            with pytest.raises(LinkClosedError):
                await pending
            with pytest.raises(LinkClosedError):
                await link.receive()
            with pytest.raises(LinkClosedError):
                await link.send(SMALL)
            await echo.left.get()

    run(scenario())


def test_the_server_closing_ends_the_clients_receive_after_what_was_sent(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server() as (url, echo):
            link = await connect(url)
            await link.send(SMALL)
            await link.receive()
            await echo.links[0].send(Drain(1.5))
            await echo.links[0].close()
            assert await link.receive() == Drain(1.5)
            for _ in range(8):
                with pytest.raises(LinkClosedError):
                    await link.receive()
            with pytest.raises(LinkClosedError):
                await link.send(SMALL)
            await link.close()

    run(scenario())


@pytest.mark.parametrize(
    "bad",
    [frame(b"\xc1 garbage"), frame(b""), frame(b"text", opcode=1), frame(encode(Close(1)) + b"x")],
    ids=["garbage", "empty", "text", "trailing bytes"],
)
def test_what_is_no_message_is_answered_and_the_session_goes_on(run: Run, bad: bytes) -> None:
    async def scenario() -> None:
        async with echo_server() as (url, _):
            reader, writer = await raw_websocket(url)
            writer.write(bad)
            header = await reader.readexactly(2)
            assert b"invalid" in await reader.readexactly(header[1])
            writer.write(frame(encode(SMALL)))
            await reader.readexactly(2)
            assert await reader.readexactly(len(encode(SMALL))) == encode(SMALL)
            writer.close()
            await writer.wait_closed()

    run(scenario())


@pytest.mark.parametrize(
    "bad",
    [bytes([0x82, 0xFF]) + (MAX_MESSAGE_BYTES + 1).to_bytes(8, "big"), b"\xf2\x80\0\0\0\0", b"\x8b\x80\0\0\0\0"],
    ids=["oversize", "reserved bits", "unknown opcode"],
)
def test_broken_frames_end_their_connection_only(run: Run, bad: bytes) -> None:
    async def scenario() -> None:
        async with echo_server() as (url, _):
            other = await connect(url)
            reader, writer = await raw_websocket(url)
            writer.write(bad)
            await read_to_end(reader)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            await other.send(SMALL)
            assert await other.receive() == SMALL
            await other.close()

    run(scenario())


def test_pings_are_answered(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server() as (url, _):
            reader, writer = await raw_websocket(url)
            writer.write(frame(b"are you there", opcode=9))
            assert await reader.readexactly(15) == b"\x8a\x0dare you there"
            writer.close()
            await writer.wait_closed()

    run(scenario())


def test_a_peer_that_vanishes_without_a_word_ends_its_session(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server() as (url, echo):
            _, writer = await raw_websocket(url)
            writer.write(frame(encode(SMALL)))
            await echo.arrived.get()
            writer.transport.abort()
            await echo.left.get()
            assert await echoes(url)

    run(scenario())


def test_a_peer_that_answers_no_ping_is_dropped(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server(bounds=Bounds(heartbeat_s=0.1, grace_s=0.0)) as (url, _):
            reader, writer = await raw_websocket(url)
            assert (await read_to_end(reader)).startswith(b"\x89")
            writer.close()

    run(scenario())


def test_a_live_link_survives_its_heartbeats(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server(bounds=Bounds(heartbeat_s=0.05, grace_s=0.0)) as (url, _):
            link = await connect(url, heartbeat_s=0.05)
            pending = asyncio.create_task(link.receive())
            await asyncio.wait([pending], timeout=0.4)
            await link.send(SMALL)
            assert await pending == SMALL
            await link.close()

    run(scenario())


def test_a_peer_that_reads_nothing_is_cut_and_stalls_nobody(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server(bounds=Bounds(stall_s=0.3, grace_s=0.0)) as (url, echo):
            _, writer = await raw_websocket(url)
            writer.write(frame(encode(Close(8))))
            assert await echoes(url)
            await echo.flooded.wait()
            writer.transport.abort()

    run(scenario())


def test_sending_waits_for_a_slow_reader_and_loses_nothing(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server() as (url, _):
            link = await connect(url)
            count = 200

            async def send_all() -> None:
                for _ in range(count):
                    await link.send(LARGE)

            sender = asyncio.create_task(send_all())
            await asyncio.wait([sender], timeout=0.2)
            assert not sender.done()  # 20 MB do not fit into any buffer on the way
            for _ in range(count):
                assert await link.receive() == LARGE
            await sender
            await link.close()

    run(scenario())


def test_closing_is_quick_when_the_peer_takes_nothing(run: Run) -> None:
    async def scenario() -> None:
        stuck = asyncio.Event()

        async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            key = next(line for line in request.split("\r\n") if line.startswith("Sec-WebSocket-Key")).split(": ")[1]
            accepted = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + base64.b64encode(accepted) + b"\r\n\r\n"
            )
            await stuck.wait()
            writer.transport.abort()

        listener = await asyncio.start_server(never_reads, "127.0.0.1", 0)
        link = await connect(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")

        async def send_for_ever() -> None:
            while True:
                await link.send(LARGE)

        sender = asyncio.create_task(send_for_ever())
        await asyncio.wait([sender], timeout=0.2)
        async with asyncio.timeout(5):
            await link.close()
        with pytest.raises(LinkClosedError):
            await sender
        stuck.set()
        listener.close()

    run(scenario())


def test_a_bug_in_one_session_is_answered_and_others_go_on(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with echo_server() as (url, _):
            other, link = await connect(url), await connect(url)
            await link.send(Close(7))
            answer = await link.receive()
            assert isinstance(answer, Refused)
            assert answer.code == "internal"
            with pytest.raises(LinkClosedError):
                await link.receive()
            await other.send(SMALL)
            assert await other.receive() == SMALL
            await link.close()
            await other.close()

    run(scenario())
    assert "a bug in the session" in caplog.text


def test_a_connection_too_many_is_told_when_to_retry(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server(bounds=Bounds(max_sessions=1, grace_s=0.0)) as (url, echo):
            link = await connect(url)
            with pytest.raises(RefusedError, match="busy") as refused:
                await connect(url)
            assert refused.value.code == "busy"
            assert refused.value.retry_after_s == 5
            await link.close()
            await echo.left.get()
            assert await echoes(url)

    run(scenario())


def test_a_connection_that_says_nothing_is_dropped(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server(bounds=Bounds(silence_s=0.1, grace_s=0.0)) as (url, _):
            reader, writer = await raw_connection(url)
            assert await read_to_end(reader) == b""
            writer.close()
            slow_reader, slow_writer = await raw_connection(url)
            slow_writer.write(b"GET /v1/session HTTP/1.1\r\nHost:")
            await read_to_end(slow_reader)
            slow_writer.close()
            link = await connect(url)
            pending = asyncio.create_task(link.receive())
            await asyncio.wait([pending], timeout=0.3)
            assert not pending.done()  # only silence before the request counts
            await link.close()
            await asyncio.gather(pending, return_exceptions=True)

    run(scenario())


def test_without_the_key_only_health_is_open(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server(api_key="sécret") as (url, _), aiohttp.ClientSession() as session:
            async with session.get(f"{url}/health") as response:
                assert response.status == 200
            for path in ("/v1/session", "/v1/model", f"/v1/tokenizer/{DIGEST}", "/metrics", "/nothing"):
                for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "sécret"}):
                    async with session.get(f"{url}{path}", headers=headers) as response:
                        assert response.status == 401, path
            with pytest.raises(RefusedError, match="API key"):
                await connect(url, api_key="wrong")

    run(scenario())


def test_the_key_opens_everything(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server(api_key="secret") as (url, _), aiohttp.ClientSession() as session:
            link = await connect(url, api_key="secret")
            await link.send(SMALL)
            assert await link.receive() == SMALL
            await link.close()
            headers = {"Authorization": "Bearer secret"}
            async with session.get(f"{url}/v1/model", headers=headers) as response:
                card = await response.json()
            assert card["model_digest"] == "model"
            assert card["exits"] == [2]
            async with session.get(f"{url}/metrics", headers=headers) as response:
                metrics = await response.text()
            assert "foredraft_generation_tokens_total 12.0" in metrics

    run(scenario())


def test_the_tokenizer_is_fetched_once_and_then_read_from_the_cache(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    async def scenario() -> None:
        async with echo_server() as (url, _):
            assert await fetch_tokenizer(url, DIGEST) == TOKENIZER
        assert await fetch_tokenizer(url, DIGEST) == TOKENIZER  # the server is gone
        file = tmp_path / "foredraft" / "tokenizers" / f"{DIGEST}.json"
        file.write_bytes(b"spoilt")
        with pytest.raises(UnreachableError):
            await fetch_tokenizer(url, DIGEST)
        async with echo_server() as (url, _):
            assert await fetch_tokenizer(url, DIGEST) == TOKENIZER
        assert file.read_bytes() == TOKENIZER

    run(scenario())
    assert [path.suffix for path in (tmp_path / "foredraft" / "tokenizers").iterdir()] == [".json"]


def test_another_tokenizer_or_an_impossible_digest_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    async def scenario() -> None:
        async with echo_server() as (url, _), aiohttp.ClientSession() as session:
            with pytest.raises(RefusedError, match="does not serve"):
                await fetch_tokenizer(url, "0" * 32)
            with pytest.raises(ProtocolError, match="digest"):
                await fetch_tokenizer(url, "../../etc/passwd")
            async with session.get(f"{url}/v1/tokenizer/other") as response:
                assert response.status == 404
                assert DIGEST in await response.text()
            tag = {"If-None-Match": f'"{DIGEST}"'}
            async with session.get(f"{url}/v1/tokenizer/{DIGEST}", headers=tag) as response:
                assert response.status == 304

    run(scenario())


def test_whoever_is_not_a_foredraft_server_is_named(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server() as (url, _):
            with pytest.raises(ProtocolError, match="not a Foredraft server"):
                await connect(f"{url}/elsewhere")
        with pytest.raises(UnreachableError, match=url):
            await connect(url)
        for wrong in ("ftp://host", "host", "http://", "http://["):
            with pytest.raises(ConfigError, match="not an address"):
                await connect(wrong)
        with pytest.raises(ConfigError, match="API key"):
            await connect(url, api_key="two\nlines")

    run(scenario())


def test_a_server_that_never_answers_is_unreachable(run: Run) -> None:
    async def scenario() -> None:
        gone = asyncio.Event()

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_to_end(reader)
            writer.close()
            gone.set()

        silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        with pytest.raises(UnreachableError, match=r"within 0\.2 s"):
            await connect(url, timeout_s=0.2)
        await gone.wait()
        silent.close()

    run(scenario())


def test_a_port_that_is_taken_is_a_config_error(run: Run) -> None:
    async def scenario() -> None:
        async with echo_server() as (url, _):
            with pytest.raises(ConfigError, match="cannot listen"):
                async with echo_server(port=urlsplit(url).port or 0):
                    pass

    run(scenario())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_the_sessions_and_ends_the_server(run: Run, number: signal.Signals) -> None:
    async def scenario() -> None:
        ready: asyncio.Queue[str] = asyncio.Queue()
        server = Server(Echo(), card=CARD, tokenizer_json=TOKENIZER, bounds=Bounds(grace_s=0.2))
        serve = asyncio.create_task(run_server(server, port=0, on_ready=ready.put_nowait))
        link = await connect(await ready.get())
        await link.send(SMALL)
        assert await link.receive() == SMALL
        os.kill(os.getpid(), number)
        assert await link.receive() == Drain()
        with pytest.raises(LinkClosedError):
            await link.receive()
        await serve
        await link.close()

    run(scenario())


def test_while_it_drains_it_says_so_and_takes_no_session(run: Run) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            server = Server(
                Echo(), card=CARD, tokenizer_json=TOKENIZER, keys=Keys.of("key"), bounds=Bounds(grace_s=20.0)
            )
            session = await stack.enter_async_context(aiohttp.ClientSession())
            listening = serving(server)
            url = await listening.__aenter__()

            async def states() -> dict[str, int]:
                found = {}
                for path in ("live", "ready", "health"):
                    async with session.get(f"{url}/{path}") as response:
                        found[path] = response.status
                        draining = (await response.json())["status"] == "draining"
                        assert draining == (response.status == 503)
                return found

            link = await connect(url, api_key="key")
            assert await states() == {"live": 200, "ready": 200, "health": 200}
            leaving = asyncio.create_task(listening.__aexit__(None, None, None))
            assert await link.receive() == Drain()
            assert await states() == {"live": 200, "ready": 503, "health": 503}
            with pytest.raises(RefusedError, match="busy"):
                await connect(url, api_key="key")
            await link.close()
            await leaving

    run(scenario())


def test_a_connection_that_is_let_in_as_the_server_begins_to_drain_is_told_so(run: Run) -> None:
    async def scenario() -> None:
        server = Server(Echo(), card=CARD, tokenizer_json=TOKENIZER)
        edge, cloud = memory_link()
        server.draining = True
        await server.serve(cloud)
        assert await edge.receive() == Drain()
        with pytest.raises(LinkClosedError):
            await edge.receive()
        assert server.connections() == 0

    run(scenario())


def test_a_full_server_is_alive_and_well_but_not_ready(run: Run) -> None:
    async def scenario() -> None:
        bounds = Bounds(max_sessions=1, grace_s=0.0)
        async with echo_server(bounds=bounds) as (url, echo), aiohttp.ClientSession() as session:
            link = await connect(url)
            await echo.arrived.get()
            for path, status in (("live", 200), ("ready", 503), ("health", 200)):
                async with session.get(f"{url}/{path}") as response:
                    assert response.status == status
            await link.close()

    run(scenario())


def test_listening_for_everyone_without_a_key_warns_loudly(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def start_and_stop(host: str, key: str) -> None:
        server = Server(Echo(), card=CARD, tokenizer_json=TOKENIZER, keys=Keys.of(key))
        await run_server(server, host=host, port=0, on_ready=lambda _: os.kill(os.getpid(), signal.SIGINT))

    with caplog.at_level(logging.WARNING):
        run(start_and_stop("127.0.0.1", ""))
        run(start_and_stop("0.0.0.0", "key"))
        assert "API KEY" not in caplog.text
        run(start_and_stop("0.0.0.0", ""))
        assert "WITHOUT AN API KEY" in caplog.text


def test_loopback_addresses_are_known() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(is_loopback, ("", "0.0.0.0", "::", "192.168.0.4", "example.org")))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_session_over_tls_and_a_certificate_that_nobody_vouches_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=str(certificate))

    async def scenario() -> None:
        server = Server(Echo(), card=CARD, tokenizer_json=TOKENIZER, bounds=Bounds(grace_s=0.0))
        async with serving(server, port=0, tls=tls_context(certificate, key)) as url:
            assert url.startswith("https://127.0.0.1:")
            link = await connect(url, ssl=trusting)
            await link.send(LARGE)
            assert await link.receive() == LARGE
            await link.close()
            assert await fetch_tokenizer(url, DIGEST, ssl=trusting) == TOKENIZER
            with pytest.raises(UnreachableError, match="certificate"):
                await connect(url)

    run(scenario())


def test_a_certificate_that_cannot_be_used_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("nonsense")
    for name in ("bad.pem", "missing.pem"):
        with pytest.raises(ConfigError, match=name):
            tls_context(tmp_path / name)
