"""The way into a server before a key is shown, over sockets: nobody who shows nothing takes what a customer needs."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio

import foredraft
from api import clouds
from foredraft.links.address import trusting
from foredraft.server.bounds import Bounds
from foredraft.server.listening import tls_context

KEY = "a-key"
BEARING = f"Authorization: Bearer {KEY}\r\n"
PLACES = 33  # with one for an edge
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def served(tls: Any = None, **bounds: Any) -> AsyncIterator[str]:
    """The URL of a cloud with a place for one edge, and 32 beside it."""
    cloud = foredraft.Cloud(clouds.target(), clouds.TOKENIZER, api_key=KEY, max_sessions=1)
    async with cloud, cloud.listen(tls=tls, bounds=Bounds(**bounds)) as url:
        yield url


class Knock(Protocol):
    async def __call__(self, url: str, address: str = "127.0.0.1") -> Ends: ...


@pytest_asyncio.fixture
async def knock() -> AsyncIterator[Knock]:
    """Connects from an address of this machine; what was opened is closed in the end."""
    opened: list[asyncio.StreamWriter] = []

    async def knock(url: str, address: str = "127.0.0.1") -> Ends:
        parts = urlsplit(url)
        ends = await asyncio.open_connection(parts.hostname, parts.port, local_addr=(address, 0))
        opened.append(ends[1])
        return ends

    yield knock
    for writer in opened:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in opened), return_exceptions=True)


async def ask(ends: Ends, path: str, headers: str = "", body: bytes = b"") -> bytes:
    """The head of the answer; empty where there is none."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    said = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: cloud\r\n{headers}{length}\r\n".encode()
    ends[1].write(said + body)
    try:
        head = await ends[0].readuntil(b"\r\n\r\n")
        length_of_body = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        await ends[0].readexactly(int(length_of_body.split(b":")[1]))
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    return head


async def is_over(ends: Ends) -> bool:
    """Wait for the end of a connection on which nothing comes any more."""
    try:
        return await ends[0].read() == b""
    except ConnectionError:
        return True


async def reasons(url: str) -> dict[str, float]:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as http:
        text = await (await http.get(f"{url}/metrics")).text()
    lines = [line for line in text.splitlines() if line.startswith("foredraft_turned_away_total")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines if not line.endswith(" 0.0")}


async def writes_a_text(url: str) -> bool:
    async with foredraft.connect(url, draft=clouds.drafter, api_key=KEY) as edge:
        return (await edge.generate("Boxer", max_new_tokens=20).finish()).new_tokens == 20


async def test_one_address_may_have_so_many_connections_without_a_key_and_others_come_in(
    knock: Knock,
) -> None:
    async with served(strangers=3) as url:
        silent = [await knock(url) for _ in range(3)]
        assert await is_over(await knock(url))
        assert b"200 OK" in await ask(await knock(url, "127.0.0.2"), "/v1/model", BEARING)
        silent[0][1].close()
        came_in = b""
        while not came_in:  # the server has to see that one has left
            came_in = await ask(await knock(url), "/v1/model", BEARING)
        assert b"200 OK" in came_in
        assert (await reasons(url))["address"] >= 1.0


async def test_new_connections_of_one_address_come_at_a_rate(knock: Knock) -> None:
    async with served(strangers_per_s=0.001) as url:
        assert b"200 OK" in await ask(await knock(url), "/live")
        assert await is_over(await knock(url))
        assert b"200 OK" in await ask(await knock(url, "127.0.0.2"), "/live")


async def test_with_all_places_taken_by_silent_peers_a_customer_comes_in_and_has_its_text(knock: Knock) -> None:
    async with served(strangers=0) as url:
        silent = [await knock(url, f"127.0.0.{2 + number % 4}") for number in range(PLACES)]
        few = [await knock(url, "127.0.0.9") for _ in range(2)]  # one more takes the place of who came first
        assert await is_over(silent[0])
        assert await writes_a_text(url)
        assert not few[0][0].at_eof()
        assert not few[1][0].at_eof()
        assert (await reasons(url))["moved"] >= 3.0


async def test_who_has_shown_a_key_makes_room_for_nobody(knock: Knock) -> None:
    async with served(strangers=0) as url:
        customers = [await knock(url) for _ in range(PLACES)]
        for one in customers:
            assert b"200 OK" in await ask(one, "/v1/model", BEARING)
        assert await is_over(await knock(url, "127.0.0.2"))
        for one in customers:
            assert b"200 OK" in await ask(one, "/v1/model", BEARING)


async def test_who_shows_no_key_has_one_answer_and_who_shows_one_goes_on(knock: Knock) -> None:
    async with served() as url:
        for path, headers, status in (("/live", "", b"200"), ("/v1/model", "Authorization: Bearer x\r\n", b"401")):
            stranger = await knock(url)
            head = await ask(stranger, path, headers)
            assert status in head
            assert b"connection: close" in head.lower()
            assert await is_over(stranger)
        customer = await knock(url)
        for path, headers in (("/v1/model", BEARING), ("/live", ""), ("/v1/model", BEARING)):
            assert b"200 OK" in await ask(customer, path, headers)


async def test_what_comes_with_the_key_may_be_long_and_without_it_may_not(knock: Knock) -> None:
    async with served(stranger_bytes=1024) as url:
        body = b'{"prompt": "' + b"x" * 300_000 + b'", "max_tokens": 1}'
        head = await ask(await knock(url), "/v1/completions", BEARING + "Content-Type: application/json\r\n", body)
        assert b"200 OK" in head
    async with served(stranger_bytes=1024, silence_s=0.1) as url:
        stranger = await knock(url)
        assert (
            await ask(stranger, "/v1/model", "X-Long: " + "x" * 2000 + "\r\n" + BEARING) == b""
        )  # the key is too far away
        assert (await reasons(url))["silent"] == 1.0


async def test_silence_ends_a_connection_and_a_health_check_that_is_never_finished_as_well(knock: Knock) -> None:
    async with served(silence_s=0.1) as url:
        silent, slow = await knock(url), await knock(url)
        slow[1].write(b"GET /live HTTP/1.1\r\nHost:")
        assert await is_over(silent)
        assert await is_over(slow)
        assert (await reasons(url))["silent"] == 2.0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
async def test_a_handshake_of_tls_that_is_not_finished_makes_room_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knock: Knock
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    making = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
        *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=IP:127.0.0.1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert await making.wait() == 0
    async with served(tls_context(certificate, key), strangers=0) as url:
        silent = [await knock(url) for _ in range(PLACES)]
        options: Any = {"draft": clouds.drafter, "api_key": KEY, "ssl": trusting(certificate)}
        async with foredraft.connect(url, **options) as edge:
            assert (await edge.generate("Boxer", max_new_tokens=20).finish()).new_tokens == 20
        assert await is_over(silent[0])
