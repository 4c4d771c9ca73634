"""The environment's proxies are honoured: HTTP_PROXY, HTTPS_PROXY, NO_PROXY."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

import foredraft
from api import clouds
from foredraft.errors import UnreachableError
from foredraft.links.probing import probe

PROMPT = clouds.TEXT[:13]


class HttpProxy:
    """A plain HTTP proxy: it forwards requests in absolute form, and tunnels."""

    def __init__(self, refuse: bool = False) -> None:
        self.passed: list[str] = []
        self.refuse = refuse

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, rest = head.split(b" ", 2)
        self.passed.append(f"{method.decode()} {target.decode()}")
        if self.refuse:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        place = target if method == b"CONNECT" else target.removeprefix(b"http://").partition(b"/")[0]
        host, port = place.decode().rsplit(":", 1)
        there, back = await asyncio.open_connection(host, int(port))
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            back.write(b" ".join((method, target[target.index(place) + len(place) :], rest)))
        await asyncio.gather(_copy(reader, back), _copy(there, writer))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def written(url: str, **options: ssl.SSLContext) -> str:
    async with foredraft.connect(url, **options) as edge:  # type: ignore[arg-type]
        return (await edge.generate(PROMPT, max_new_tokens=20).finish()).text


TEXT = clouds.text_between(len(PROMPT.encode()), len(PROMPT.encode()) + 20)


async def test_sessions_tokenizers_and_measurements_go_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = HttpProxy()
    async with proxy.listening() as way, clouds.cloud() as cloud, cloud.listen() as url:
        monkeypatch.setenv("HTTP_PROXY", way)
        assert await written(url) == TEXT
        await probe(url, seconds=0.2)
    paths = {request.partition(url)[2].split("/")[2] for request in proxy.passed}
    assert paths == {"session", "tokenizer", "probe"}


async def test_what_no_proxy_names_is_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = HttpProxy()
    async with proxy.listening() as way, clouds.cloud() as cloud, cloud.listen() as url:
        monkeypatch.setenv("HTTP_PROXY", way)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert await written(url) == TEXT
    assert proxy.passed == []


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for this machine, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*words.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


async def test_tls_goes_through_a_tunnel(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificate
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    proxy = HttpProxy()
    async with proxy.listening() as way, clouds.cloud() as cloud, cloud.listen(tls=tls) as url:
        monkeypatch.setenv("HTTPS_PROXY", way)
        assert await written(url, ssl=ssl.create_default_context(cafile=str(cert))) == TEXT
    assert {request.split()[0] for request in proxy.passed} == {"CONNECT"}


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_refuses_is_named(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with HttpProxy(refuse=True).listening() as way:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", way)
        edge = foredraft.connect(f"{scheme}://127.0.0.1:9", retry=foredraft.Retry(attempts=0))
        with pytest.raises(UnreachableError, match=r"the proxy .* answers HTTP 407.*NO_PROXY"):
            await edge.__aenter__()
