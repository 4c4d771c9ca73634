"""What connections cost that say nothing: the server's memory for each, and whether an honest edge gets in beside them.

They are as hard to tell from honest ones as can be: each has shaken hands and answers pings. There are as many as the
server has places.
"""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Sequence

from foredraft.api.edge import connect
from foredraft.bench.result import Figure, Result
from foredraft.bench.server_process import server_process
from foredraft.edge.handshake import shake_hands
from foredraft.errors import ForedraftError
from foredraft.links import websocket
from foredraft.protocol.ports import Link

_AT_ONCE, _SPARE_FILES, _TEXTS, _TOKENS = 50, 200, 5, 16


async def measure(connections: int = 1000) -> Result:
    """Memory and waiting, with none and with so many. Raises ForedraftError where they cannot be opened."""
    _allow_files(connections + _SPARE_FILES)
    unhurried = ("--strangers-per-second", "0")  # all come from one address, and at once
    async with server_process("--max-sessions", str(connections), *unhurried) as server:
        await _texts_s(server.url, 1)  # what a first text loads
        alone_s, before_mb = await _texts_s(server.url, _TEXTS), server.resident_mb()
        async with _silent(server.url, connections) as links:
            each_kb = (server.resident_mb() - before_mb) * 1e3 / connections
            beside_s = await _texts_s(server.url, _TEXTS)
            left = sum(not link.closed for link in links)
    figures = (
        Figure("memory of the server for each", each_kb, "kB"),
        Figure(f"honest edges that got in and had their text, of {_TEXTS}", len(beside_s), "", _TEXTS, at_least=True),
        Figure("connecting and a text, median, over the same with none", _median(beside_s) / _median(alone_s), "x"),
        Figure("connecting and a text, median", _median(beside_s) * 1e3, "ms"),
        Figure("of the silent ones still there then", left, ""),
    )
    return Result("trust-idle", f"{connections} connections that shook hands and then answer pings alone", figures)


async def _texts_s(url: str, texts: int) -> list[float]:
    """How long honest edges took, one after another, each with a connection of its own; of those that got in."""
    clock = asyncio.get_running_loop().time
    taken_s = []
    for number in range(texts):
        began_s = clock()
        with contextlib.suppress(ForedraftError):
            async with connect(url, draft="ngram") as edge:
                asked = edge.generate([number + 2] * 8, policy="sync", max_new_tokens=_TOKENS, end_marks=False)
                await asked.finish()
                taken_s.append(clock() - began_s)
    return taken_s


@contextlib.asynccontextmanager
async def _silent(url: str, connections: int) -> AsyncIterator[Sequence["_Silent"]]:
    doors = asyncio.Semaphore(_AT_ONCE)

    async def one() -> _Silent:
        async with doors:
            link = await websocket.connect(url)
            await shake_hands(link)
            return _Silent(link)

    links = await asyncio.gather(*(one() for _ in range(connections)))
    try:
        yield links
    finally:
        await asyncio.gather(*(link.close() for link in links))


class _Silent:
    """A connection that is listened to, so that pings are answered, and on which nothing is said."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._listening = asyncio.create_task(self._listen())

    @property
    def closed(self) -> bool:
        """Whether the server has ended it."""
        return self._listening.done()

    async def _listen(self) -> None:
        with contextlib.suppress(ForedraftError):
            while True:
                await self._link.receive()

    async def close(self) -> None:
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        await self._link.close()


def _allow_files(files: int) -> None:
    """For us, and for the server that we start. Raises ForedraftError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < files:
        raise ForedraftError(f"{files} open files are needed, and this system allows {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else float("nan")
