"""The files of examples/deploy: nginx and systemd are real where they are installed; images are built as far as pip."""

import asyncio
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest

import foredraft
from api import clouds
from paths import EXAMPLES, ROOT

DEPLOY = EXAMPLES / "deploy"
PROMPT = clouds.TEXT[:13]
START = len(PROMPT.encode())
needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*words.split(), *files], check=True, capture_output=True)
    return tmp_path / "cert.pem"


@asynccontextmanager
async def nginx(folder: Path, *servers: str) -> AsyncIterator[str]:
    """nginx with the example's configuration, on a port of its own, in front of these servers; the URL for edges."""
    port = free_port()
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    for old, new in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/nginx/": f"{folder}/",
        "127.0.0.1:8471": servers[0].removeprefix("http://"),
        "127.0.0.1:8481": servers[1].removeprefix("http://"),
        "events {}": f"pid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}",
        "http {": "http {\n    access_log off;\n"
        + "".join(
            f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ),
    }.items():
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    words = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    process = await asyncio.create_subprocess_exec(*words, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            except ConnectionRefusedError:
                assert process.returncode is None, "nginx has ended"
                await asyncio.sleep(0.02)
        yield f"https://127.0.0.1:{port}/foredraft"
    finally:
        process.terminate()
        await process.wait()


@needs_nginx
async def test_sessions_and_openais_clients_go_through_nginx_with_tls_below_a_path(
    tmp_path: Path, certificate: Path
) -> None:
    trust = ssl.create_default_context(cafile=str(certificate))
    async with (
        clouds.cloud() as first,
        clouds.cloud() as second,
        first.listen() as one,
        second.listen() as two,
        nginx(tmp_path, one, two) as url,
    ):
        async with foredraft.connect(url, ssl=trust, draft=clouds.drafter) as edge:
            texts = [edge.generate(PROMPT, policy="seed", max_new_tokens=60).finish() for _ in range(3)]
            reports = await asyncio.gather(*texts)
        async with _client(url, trust) as client:
            stream = await client.completions.create(model="foredraft", prompt=PROMPT, max_tokens=20, stream=True)
            streamed = "".join([chunk.choices[0].text async for chunk in stream])
    assert [report.text for report in reports] == [clouds.text_between(START, START + 60)] * 3
    assert streamed == clouds.text_between(START, START + 20)


def _client(url: str, trust: ssl.SSLContext) -> openai.AsyncOpenAI:
    http = openai.DefaultAsyncHttpxClient(verify=trust)
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", http_client=http)


@needs_nginx
async def test_where_a_server_is_gone_its_text_goes_on_at_the_other(tmp_path: Path, certificate: Path) -> None:
    trust = ssl.create_default_context(cafile=str(certificate))
    async with clouds.cloud() as first, clouds.cloud() as second:
        listening = {cloud: cloud.listen() for cloud in (first, second)}
        urls = {cloud: await listening[cloud].__aenter__() for cloud in listening}
        async with nginx(tmp_path, *urls.values()) as url:
            retry = foredraft.Retry(attempts=50, first_s=0.05, most_s=0.5)
            async with foredraft.connect(url, ssl=trust, draft=clouds.drafter, retry=retry) as edge:
                generation = edge.generate(PROMPT, policy="sync", max_new_tokens=3000)
                await anext(generation)
                gone, other = (first, second) if first.service.counters.active else (second, first)
                assert other.service.counters.sessions == 0
                await listening[gone].__aexit__(None, None, None)
                report = await generation.finish()
        await listening[other].__aexit__(None, None, None)
    assert report.text == clouds.text_between(START, START + 3000)
    assert report.reconnects > 0
    assert other.service.counters.tokens > 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("name", ["foredraft-serve.service", "foredraft-edge.service"])
def test_systemd_finds_nothing_wrong_with_the_units(name: str, tmp_path: Path) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    program = Path(sys.executable).parent / "foredraft"
    assert "/opt/foredraft/bin/foredraft" in text
    (tmp_path / name).write_text(text.replace("/opt/foredraft/bin/foredraft", str(program)), encoding="utf-8")
    words = ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)]
    done = subprocess.run(words, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if name in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize("name", ["cloud.Dockerfile", "edge.Dockerfile"])
def test_what_a_dockerfile_copies_is_all_that_the_package_needs(name: str, tmp_path: Path) -> None:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, tmp_path / source)
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "out", "."]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("foredraft-*.whl"))) == 1
    extras = re.findall(r"\.\[([\w,]+)\]", text)[0].split(",")
    assert ("torch" in extras) == (name == "cloud.Dockerfile")
