"""The environment's proxies are honoured: HTTP_PROXY, HTTPS_PROXY, NO_PROXY."""

import asyncio
import base64
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from yarl import URL

import foredraft
from api import clouds
from foredraft.errors import ConfigError, ProtocolError, UnreachableError
from foredraft.links.http_proxies import LOOPBACK_TOO, proxy_for
from foredraft.links.model_files import fetch_tokenizer
from foredraft.links.probing import probe
from foredraft.loop import new_event_loop
from foredraft.server.listening import tls_context

PROMPT = clouds.TEXT[:13]


HOST = "cloud.example"
"""A name that nothing but the proxy can find."""


class HttpProxy:
    """A plain HTTP proxy: it forwards requests in absolute form, and tunnels. It finds HOST on this machine.

    ``refuse``: the status that it answers with instead. ``key``: the credentials that it wants. ``upgrades``: whether
    it passes WebSockets on that are not in a tunnel.
    """

    def __init__(self, *, refuse: str = "", key: str = "", upgrades: bool = True) -> None:
        self.passed: list[str] = []
        self.refuse = refuse
        self.key = key
        self.upgrades = upgrades

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, rest = head.split(b" ", 2)
        self.passed.append(f"{method.decode()} {target.decode()}")
        known = f"Proxy-Authorization: Basic {base64.b64encode(self.key.encode()).decode()}".encode() in head
        refuse = self.refuse or ("407 Who Are You" if self.key and not known else "")
        if refuse:
            writer.write(f"HTTP/1.1 {refuse}\r\nContent-Length: 0\r\n\r\n".encode())
            writer.close()
            return
        if not self.upgrades:
            rest = rest.replace(b"Upgrade: websocket\r\n", b"").replace(b"Connection: Upgrade\r\n", b"")
        place = target if method == b"CONNECT" else target.removeprefix(b"http://").partition(b"/")[0]
        host, port = place.decode().rsplit(":", 1)
        there, back = await asyncio.open_connection("127.0.0.1" if host == HOST else host, int(port))
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
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", LOOPBACK_TOO):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def by_name(url: str) -> str:
    """A server on this machine by the name that the proxy knows."""
    return url.replace("127.0.0.1", HOST)


async def written(url: str, ssl: ssl.SSLContext | None = None) -> str:
    async with foredraft.connect(url, ssl=ssl, retry=foredraft.Retry(attempts=0)) as edge:
        return (await edge.generate(PROMPT, max_new_tokens=20).finish()).text


TEXT = clouds.text_between(len(PROMPT.encode()), len(PROMPT.encode()) + 20)


async def test_sessions_tokenizers_and_measurements_go_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = HttpProxy()
    async with proxy.listening() as way, clouds.cloud() as cloud, cloud.listen() as url:
        monkeypatch.setenv("HTTP_PROXY", way)
        url = by_name(url)
        assert await written(url) == TEXT
        await probe(url, seconds=0.2)
    paths = {request.partition(url)[2].split("/")[2] for request in proxy.passed}
    assert paths == {"session", "tokenizer", "probe"}


async def test_what_no_proxy_names_is_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = HttpProxy()
    async with proxy.listening() as way, clouds.cloud() as cloud, cloud.listen() as url:
        monkeypatch.setenv("HTTP_PROXY", way)
        monkeypatch.setenv(LOOPBACK_TOO, "1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert await written(url) == TEXT
    assert proxy.passed == []


async def test_this_machine_itself_is_reached_directly_unless_asked_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = HttpProxy()
    async with proxy.listening() as way, clouds.cloud() as cloud, cloud.listen() as url:
        monkeypatch.setenv("HTTP_PROXY", way)
        assert await written(url) == TEXT
        assert proxy.passed == []
        monkeypatch.setenv(LOOPBACK_TOO, "1")
        assert await written(url) == TEXT
        assert proxy.passed != []


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ("cloud.example", True),
        ("other.example, .example", True),
        ("cloud.example:8471", True),
        ("*", True),
        ("cloud.example:9999", False),
        ("loud.example", False),
        ("", False),
    ],
)
def test_no_proxy_names_hosts_domains_and_ports(no_proxy: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "proxy:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    proxy = proxy_for(URL("http://cloud.example:8471/v1/session"))
    assert str(proxy) == ("None" if direct else "http://proxy:3128 (HTTP_PROXY)")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "[::1]", "localhost", "me.localhost"])
def test_every_name_of_this_machine_is_known(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    assert proxy_for(URL(f"http://{host}:8471")) is None


@pytest.mark.parametrize("value", ["socks5://me:secret@proxy:1080", "https://me:secret@proxy", "http://"])
def test_a_proxy_that_cannot_be_used_is_not_passed_by(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(ConfigError, match=r"HTTPS_PROXY is .*, which is no HTTP proxy; write it like") as refused:
        proxy_for(URL("https://cloud.example"))
    assert "secret" not in str(refused.value)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for this machine, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=here -addext subjectAltName=DNS:cloud.example"
    subprocess.run([*words.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, new_event_loop])
def test_tls_goes_through_a_tunnel_on_each_loop(
    new_loop: Callable[[], asyncio.AbstractEventLoop], certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(through_a_tunnel(certificate, monkeypatch))


async def through_a_tunnel(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificate
    tls = tls_context(cert, key)
    proxy = HttpProxy()
    async with proxy.listening() as way, clouds.cloud() as cloud, cloud.listen(tls=tls) as url:
        monkeypatch.setenv("HTTPS_PROXY", way)
        assert await written(by_name(url), ssl=ssl.create_default_context(cafile=str(cert))) == TEXT
    assert {request.split()[0] for request in proxy.passed} == {"CONNECT"}


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("status", ["407 Who Are You", "403 Forbidden"])
async def test_a_proxy_that_refuses_is_named(scheme: str, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with HttpProxy(refuse=status).listening() as way:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", way)
        url = f"{scheme}://{HOST}:8471"
        named = rf"the proxy {way} \({scheme.upper()}_PROXY\) answers HTTP {status[:3]} on the way to {url}; .*NO_PROXY"
        with pytest.raises(UnreachableError, match=named):
            await written(url)
        with pytest.raises(UnreachableError, match=named):
            await probe(url, seconds=0.1)
        with pytest.raises(UnreachableError, match=named):
            await fetch_tokenizer(url, "0" * 32)


async def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with HttpProxy().listening() as way:
        pass
    monkeypatch.setenv("HTTP_PROXY", way)
    with pytest.raises(UnreachableError, match=rf"through the proxy {way} \(HTTP_PROXY\): Connection refused"):
        await written(f"http://{HOST}:8471")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_credentials_go_to_the_proxy_and_into_no_message(
    scheme: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = tls_context(*certificate) if scheme == "https" else None
    trust = ssl.create_default_context(cafile=str(certificate[0]))
    async with HttpProxy(key="me:secret").listening() as way, clouds.cloud() as cloud, cloud.listen(tls=tls) as url:
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", way.replace("://", "://me:secret@"))
        assert await written(by_name(url), ssl=trust) == TEXT
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", way.replace("://", "://me:wrong@"))
        with pytest.raises(UnreachableError, match="answers HTTP 407") as refused:
            await written(by_name(url), ssl=trust)
    assert "wrong" not in str(refused.value)


async def test_a_proxy_that_passes_no_websockets_on_is_suspected(monkeypatch: pytest.MonkeyPatch) -> None:
    async with HttpProxy(upgrades=False).listening() as way, clouds.cloud() as cloud, cloud.listen() as url:
        monkeypatch.setenv("HTTP_PROXY", way)
        with pytest.raises(ProtocolError, match="a proxy that passes no WebSockets on; an https server"):
            await written(by_name(url))
