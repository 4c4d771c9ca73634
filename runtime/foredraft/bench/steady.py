"""Whether memory grows at either end while the same sessions go on and on.

Each session writes the same few texts over and over: what is kept on purpose (the server's cache of beginnings, the
n-gram drafter's index of 16,384 tokens) soon has all of them, and what still grows then is lost.
"""

import asyncio
from collections.abc import Sequence
from itertools import cycle
from statistics import linear_regression
from typing import Final

from foredraft.api.edge import Edge, connect
from foredraft.bench.edge_memory import memory_mb
from foredraft.bench.result import Figure, Result
from foredraft.bench.server_process import ServerProcess, server_process

MOST_MB_PER_HOUR: Final = 1.0
FULL_MINUTES: Final = 60.0
_ENDS: Final = ("server", "edge")
_WARM: Final = 0.4  # this part of the time is not judged: pools, caches and libraries fill in it
_EVERY_S, _TEXTS, _PROMPT, _TOKENS = 1.0, 4, 32, 48


async def measure(minutes: float = 5.0, sessions: int = 8) -> Result:
    """Slopes of the resident memory of a server and of this process, its edge. Raises ForedraftError."""
    async with server_process() as server, connect(server.url, draft="ngram") as edge:
        writing = [asyncio.create_task(_write(edge, number)) for number in range(sessions)]
        try:
            samples = await _samples(minutes * 60, server, writing)
        finally:
            for task in writing:
                task.cancel()
            await asyncio.gather(*writing, return_exceptions=True)
    at_s, *held_mb = zip(*samples[int(len(samples) * _WARM) :], strict=True)
    part = "" if minutes >= FULL_MINUTES else f", EXTRAPOLATED from {minutes:g} minutes"
    figures = [
        Figure(f"the {end} grows in an hour{part}", slope_mb_per_hour(at_s, held), "MB", MOST_MB_PER_HOUR)
        for end, held in zip(_ENDS, held_mb, strict=True)
    ]
    figures += [Figure(f"the {end} holds", held[-1], "MB") for end, held in zip(_ENDS, held_mb, strict=True)]
    how = f"{sessions} sessions of the bundled target, {_TEXTS} texts of {_TOKENS} tokens over and over, policy sync"
    return Result("trust-steady", f"{how}; of {minutes:g} minutes the last {1 - _WARM:.0%} are judged", tuple(figures))


async def _samples(
    duration_s: float, server: ServerProcess, writing: "Sequence[asyncio.Task[None]]"
) -> list[tuple[float, float, float]]:
    """When, and what the server and this process held. Raises what ends a session."""
    clock = asyncio.get_running_loop().time
    ends_s = clock() + duration_s
    samples = []
    while clock() < ends_s:
        done, _ = await asyncio.wait(writing, timeout=_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
        samples.append((clock(), server.resident_mb(), memory_mb()["VmRSS"]))
    return samples


async def _write(edge: Edge, number: int) -> None:
    for text in cycle(range(_TEXTS)):
        prompt = [2 + number, *range(2 + text, 2 + text + _PROMPT)]
        await edge.generate(
            prompt, policy="sync", temperature=0.8, seed=text, max_new_tokens=_TOKENS, end_marks=False
        ).finish()


def slope_mb_per_hour(at_s: Sequence[float], held_mb: Sequence[float]) -> float:
    """Of the line through the samples."""
    return linear_regression(at_s, held_mb).slope * 3600
