"""How many round trips it takes to the first token: over a new connection, and over one that was kept.

A scripted target that answers at once, behind a shaping proxy of 40 ms, so what is left is connecting. TCP's own
handshake with the proxy is local: over a real link a new connection takes one round trip more than is measured here.
"""

import asyncio
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from foredraft.api.cloud import Cloud
from foredraft.bench.bytes_tokenizer import byte_tokenizer
from foredraft.bench.result import Figure, Result
from foredraft.edge.connections import Connections
from foredraft.edge.session import EdgeSession
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.links.proxy_process import proxy_process
from foredraft.links.shaping import Shape
from foredraft.links.websocket import connect
from foredraft.policies import make_policy
from foredraft.protocol.sampling import Sampling, StopRules

ROUND_TRIP_S = 0.04
MOST_ROUND_TRIPS = 1.15
_CERTIFICATE = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"


async def measure(texts: int = 15) -> Result:
    """Round trips to the first token, medians of so many texts of each kind, without TLS and with it."""
    figures = await _figures(texts, "", None)
    if shutil.which("openssl") is not None:
        with tempfile.TemporaryDirectory() as folder:
            figures += await _figures(texts, ", TLS", await _certificate(Path(folder)))
    method = f"medians of {texts} texts over a link of {ROUND_TRIP_S * 1e3:g} ms"
    return Result("first-token", method, tuple(figures))


async def _certificate(folder: Path) -> Path:
    """A certificate for this machine, and its key, in one file."""
    file = folder / "both.pem"
    words = [*_CERTIFICATE.split(), "-keyout", str(file), "-out", str(folder / "cert.pem")]
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*words, stdout=quiet, stderr=quiet)
    await process.wait()
    file.write_bytes(file.read_bytes() + (folder / "cert.pem").read_bytes())
    return file


async def _figures(texts: int, what: str, certificate: Path | None) -> list[Figure]:
    async with _server(certificate) as (url, trust):
        make = partial(connect, url, ssl=trust)
        cold, known, warm = Connections(make), Connections(make), Connections(make, most_idle=1)
        known.expected = await warm.meet()
        kinds = {"a new connection": cold, "a new connection to a known server": known, "a kept connection": warm}
        figures = []
        for name, connections in kinds.items():
            keep = connections.expected
            times_s = []
            for _ in range(texts):
                connections.expected = keep
                times_s.append(await _first_token_s(connections))
            bound = MOST_ROUND_TRIPS if connections is warm else None
            figures.append(Figure(f"{name}{what}", median(times_s) / ROUND_TRIP_S, "round trips", bound=bound))
        await warm.close()
    return figures


@asynccontextmanager
async def _server(certificate: Path | None) -> AsyncIterator[tuple[str, ssl.SSLContext | None]]:
    """A server behind a slow link: its URL, and what trusts it."""
    tls = trust = None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
        trust = ssl.create_default_context(cafile=str(certificate))
    tokenizer = byte_tokenizer()
    target = ScriptedTarget(lambda position: position % 256, vocab_size=256, tokenizer_digest=tokenizer.digest)
    way = Shape(delay_s=ROUND_TRIP_S / 2)
    async with Cloud(target, tokenizer) as cloud, cloud.listen(tls=tls) as url:
        port = urlsplit(url).port or 0
        with proxy_process("127.0.0.1", port, up=way, down=way) as proxy:
            yield f"{'http' if tls is None else 'https'}://127.0.0.1:{proxy.port}", trust


async def _first_token_s(connections: Connections) -> float:
    session = EdgeSession(
        (1, 2, 3),
        connect=connections,
        drafter=ScriptedDrafter(lambda position, width: []),
        policy=make_policy("cloud"),
        sampling=Sampling(),
        rules=StopRules(max_new_tokens=4),
    )
    await session.run()
    ttft_s = session.report().ttft_s
    if ttft_s is None:
        raise RuntimeError("a text without a token")
    return ttft_s
