"""How long texts stand still when their server is killed: until all go on, from when it is back."""

import asyncio
import logging
import time
from collections.abc import Callable

from foredraft.api.edge import Edge, connect
from foredraft.api.generation import Generation
from foredraft.bench.result import Figure, Result
from foredraft.bench.server_process import server_process
from foredraft.edge.connections import Retry
from foredraft.quieted import quieted

MOST_S = 3.0
_PROMPT, _BEFORE, _ATTEMPTS = 64, 4, 60
"""Tokens of a prompt, tokens of each text before the kill, and tries in a row: for as long as the server is away."""


async def measure(sessions: int = 64) -> Result:
    """Texts at once over one edge, on the bundled target; it is killed in their midst. Raises ForedraftError."""
    clock = asyncio.get_running_loop().time
    with quieted(logging.ERROR, "foredraft.edge"):  # each text would tell of each try
        async with server_process("--max-sessions", str(2 * sessions)) as server:
            retry = Retry(attempts=_ATTEMPTS)
            async with connect(server.url, draft="ngram", retry=retry) as edge:
                texts = [_Text(edge, number, clock) for number in range(sessions)]
                await asyncio.gather(*(text.more_than(_BEFORE - 1) for text in texts))
                server.kill()
                killed_s = clock()
                await server.start()
                back_s = clock()
                cpu_s = server.cpu_s() + time.process_time()
                known = [text.tokens for text in texts]
                await asyncio.gather(*(text.more_than(tokens) for text, tokens in zip(texts, known, strict=True)))
                cpu_s = server.cpu_s() + time.process_time() - cpu_s
                waits_s = sorted(text.last_s - back_s for text in texts)
                for text in texts:
                    await text.end()
    figures = (
        Figure("until all go on, from when the server is back", waits_s[-1], "s", MOST_S),
        Figure("until half of them do", waits_s[len(waits_s) // 2], "s"),
        Figure("what both processes took of the cores in that time", cpu_s, "s"),
        Figure("the server was away", back_s - killed_s, "s"),
    )
    how = f"{sessions} texts over one edge, policy sync, killed with -9 after {_BEFORE} tokens of each or more"
    return Result("trust-killed", f"{how}; the edge's usual waits between tries", figures)


class _Text:
    """A text that is written as long as it may be, and when its last token came."""

    def __init__(self, edge: Edge, number: int, clock: Callable[[], float]) -> None:
        self._generation: Generation = edge.generate(
            [number + 2] * _PROMPT, policy="sync", temperature=0.8, seed=number, max_new_tokens=10_000, end_marks=False
        )
        self._clock, self._came = clock, asyncio.Condition()
        self.tokens, self.last_s = 0, 0.0
        self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        async for piece in self._generation:
            async with self._came:
                self.tokens += len(piece.tokens)
                self.last_s = self._clock()
                self._came.notify_all()

    async def more_than(self, tokens: int) -> None:
        """Wait until there are. Raises what ends the text before."""
        waiting = asyncio.create_task(self._until(tokens))
        await asyncio.wait({waiting, self._writing}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            await self._writing  # raises, or was at its end

    async def _until(self, tokens: int) -> None:
        async with self._came:
            await self._came.wait_for(lambda: self.tokens > tokens)

    async def end(self) -> None:
        """Leave the text."""
        self._writing.cancel()
        await asyncio.gather(self._writing, return_exceptions=True)
        await self._generation.aclose()
