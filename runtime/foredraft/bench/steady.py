"""Whether memory grows at either end while the same sessions go on and on.

Each session writes the same few texts over and over: what is kept on purpose (the server's cache of beginnings, the
n-gram drafter's index of 16,384 tokens) soon has all of them, and what still grows then is lost.
"""

import asyncio
import math
from array import array
from collections.abc import Iterator, Sequence
from itertools import count, cycle
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


class Samples:
    """What each end held, and when. All its room is taken at once: the process that notes them is one of the ends."""

    def __init__(self, most: int) -> None:
        self._columns = [array("d", bytes(8 * most)) for _ in ("at", *_ENDS)]  # copied, and so resident from now on
        self._count = 0

    def note(self, at_s: float, *held_mb: float) -> None:
        """One more. ``held_mb``: of each end. Raises IndexError where there is no room."""
        for column, value in zip(self._columns, (at_s, *held_mb), strict=True):
            column[self._count] = value
        self._count += 1

    def judged(self) -> "list[array[float]]":
        """Moments in seconds and each end's memory in MB, from when all is warm."""
        return [column[int(self._count * _WARM) : self._count] for column in self._columns]


async def measure(minutes: float = 5.0, sessions: int = 8) -> Result:
    """Slopes of the resident memory of a server and of this process, its edge. Raises ForedraftError."""
    written = count()
    async with server_process() as server, connect(server.url, draft="ngram") as edge:
        writing = [asyncio.create_task(_write(edge, number, written)) for number in range(sessions)]
        try:
            samples = await _samples(minutes * 60, server, writing)
        finally:
            for task in writing:
                task.cancel()
            await asyncio.gather(*writing, return_exceptions=True)
    at_s, *held_mb = samples.judged()
    part = "" if minutes >= FULL_MINUTES else f", EXTRAPOLATED from {minutes:g} minutes"
    figures = []
    for end, held in zip(_ENDS, held_mb, strict=True):
        grows_mb = slope_mb_per_hour(at_s, held)
        figures.append(Figure(f"the {end} grows in an hour{part}", grows_mb, "MB", MOST_MB_PER_HOUR))
        figures.append(Figure(f"the {end} holds", held[-1], "MB"))
        figures.append(Figure(f"the {end} held when it was warm", held[0], "MB"))
    figures.append(Figure("texts that were written", next(written), ""))
    how = f"{sessions} sessions of the bundled target, {_TEXTS} texts of {_TOKENS} tokens over and over, policy sync"
    return Result("trust-steady", f"{how}; of {minutes:g} minutes the last {1 - _WARM:.0%} are judged", tuple(figures))


async def _samples(duration_s: float, server: ServerProcess, writing: "Sequence[asyncio.Task[None]]") -> Samples:
    """What the server and this process held. Raises what ends a session."""
    clock = asyncio.get_running_loop().time
    ends_s = clock() + duration_s
    samples = Samples(math.ceil(duration_s / _EVERY_S) + 1)
    while clock() < ends_s:
        done, _ = await asyncio.wait(writing, timeout=_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
        samples.note(clock(), server.resident_mb(), memory_mb()["VmRSS"])
    return samples


async def _write(edge: Edge, number: int, written: Iterator[int]) -> None:
    for text in cycle(range(_TEXTS)):
        prompt = [2 + number, *range(2 + text, 2 + text + _PROMPT)]
        await edge.generate(
            prompt, policy="sync", temperature=0.8, seed=text, max_new_tokens=_TOKENS, end_marks=False
        ).finish()
        next(written)


def slope_mb_per_hour(at_s: Sequence[float], held_mb: Sequence[float]) -> float:
    """Of the line through the samples."""
    return linear_regression(at_s, held_mb).slope * 3600
