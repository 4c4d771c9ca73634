"""``foredraft edge``: a server and an edge in processes of their own, and a client of OpenAI's."""

import asyncio
import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import openai
import pytest

from api import clouds

EDGE = [sys.executable, "-m", "foredraft", "edge", "--port", "0", "--json"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


async def test_the_verb_serves_a_client_until_it_is_told_to_stop() -> None:
    async with clouds.cloud(api_key="cloud's") as cloud, cloud.listen() as url:
        words = ["--server", url, "--server-api-key", "cloud's", "--api-key", "mine", "--served-model-name", "boxer"]
        process = await asyncio.create_subprocess_exec(*EDGE, *words, "--policy", "sync", stdout=subprocess.PIPE)
        assert process.stdout is not None
        ready = json.loads(await process.stdout.readline())
        async with openai.AsyncOpenAI(base_url=f"{ready['url']}/v1", api_key="mine") as client:
            said = await client.completions.create(model="boxer", prompt=clouds.TEXT[:13], max_tokens=20)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    start = len(clouds.TEXT[:13].encode())
    assert said.choices[0].text == clouds.text_between(start, start + 20)
    assert said.foredraft["policy"] == "sync"  # type: ignore[attr-defined]
    assert ready["model"] == "boxer"


@pytest.mark.parametrize("words", [["--strangers", "1"], ["--strangers-per-second", "0.001"]])
async def test_who_shows_no_key_is_bounded_by_address_as_at_a_server(words: list[str]) -> None:
    async with clouds.cloud() as cloud, cloud.listen() as url:
        process = await asyncio.create_subprocess_exec(
            *EDGE, "--server", url, "--api-key", "mine", *words, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        port = urlsplit(json.loads(await process.stdout.readline())["url"]).port
        silent, second, customer = [
            await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
            for address in ("127.0.0.1", "127.0.0.1", "127.0.0.2")
        ]
        customer[1].write(b"GET /v1/models HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer mine\r\n\r\n")
        answer = await customer[0].readline()
        with suppress(ConnectionError):
            assert await second[0].read() == b""
        assert not silent[0].at_eof()
        for _, writer in (silent, second, customer):
            writer.close()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--server", "nowhere"], 2, "is not an address"),
        (["--server", "http://127.0.0.1:1", "--retries", "0"], 1, "gave up after 0 retries"),
        (["--server", "http://127.0.0.1:1", "--policy", "sink"], 2, "did you mean 'sync'"),
        (["--server", "http://127.0.0.1:1", "--ssl-cafile", "nothing.pem"], 2, "cannot use the certificate"),
        (["--server", "http://127.0.0.1:1", "--ssl-keyfile", "key.pem"], 2, "--ssl-keyfile needs --ssl-certfile"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(words: list[str], code: int, said: str) -> None:
    done = subprocess.run([*EDGE, *words], capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
