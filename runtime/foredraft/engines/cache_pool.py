"""Which session's cache may hold how much: slots, a memory budget, and caches kept for a resume.

A slot that is given up leaves its cache behind, idle. An idle cache is taken over by a session
whose text begins with (most of) what it holds; it is dropped, least recently used first, when
memory is needed, and after a while in any case. Used on the event loop's thread only.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from foredraft.errors import RefusedError
from foredraft.protocol.messages import BUSY

GROWTH_ROWS = 256
_Cache = TypeVar("_Cache")


@dataclass(eq=False, slots=True)
class Held(Generic[_Cache]):
    """A cache, the tokens whose rows it holds, and how many rows are charged to the budget."""

    cache: _Cache
    text: list[int] = field(default_factory=list)
    rows: int = 0


class CachePool(Generic[_Cache]):
    """Hands out caches made by ``make`` within ``budget_bytes`` and ``max_slots``."""

    def __init__(
        self,
        make: Callable[[], _Cache],
        row_bytes: int,
        budget_bytes: int,
        max_slots: int,
        idle_s: float,
        retry_after_s: float,
    ) -> None:
        self._make, self._row_bytes = make, row_bytes
        self._budget_bytes, self._max_slots = budget_bytes, max_slots
        self._idle_s, self._retry_after_s = idle_s, retry_after_s
        self._active: set[Held[_Cache]] = set()
        self._idle: dict[Held[_Cache], asyncio.TimerHandle] = {}  # least recently used first

    @property
    def active(self) -> int:
        """How many slots are taken."""
        return len(self._active)

    @property
    def idle(self) -> int:
        """How many caches wait for a resume."""
        return len(self._idle)

    @property
    def charged_bytes(self) -> int:
        """Bytes of all caches, idle ones included."""
        return self._row_bytes * sum(held.rows for held in (*self._active, *self._idle))

    def take(self, tokens: Sequence[int]) -> Held[_Cache]:
        """A cache for a session over ``tokens``, with what an idle one already holds of them.

        At least the last token is always left to run. Raises RefusedError("busy").
        """
        if len(self._active) >= self._max_slots:
            raise RefusedError(BUSY, f"all {self._max_slots} slots are taken", self._retry_after_s)
        held, common = self._closest(tokens)
        if held is not None:
            self._idle.pop(held).cancel()
            del held.text[common:]
        else:
            held = Held(self._make())
        self._active.add(held)
        try:
            self.charge(held, len(tokens) + GROWTH_ROWS)
        except RefusedError:
            self.give_back(held)
            raise
        return held

    def _closest(self, tokens: Sequence[int]) -> tuple[Held[_Cache] | None, int]:
        """The idle cache that shares the longest prefix, if that is at least half of what it holds."""
        closest, longest = None, 0
        for held in self._idle:
            common = min(_common_prefix(held.text, tokens), len(tokens) - 1)
            if common > longest and 2 * common >= len(held.text):
                closest, longest = held, common
        return closest, longest

    def charge(self, held: Held[_Cache], rows: int) -> None:
        """See to it that ``held`` may have ``rows`` rows. Raises RefusedError("busy") when memory is short."""
        if rows <= held.rows:
            return
        if rows * self._row_bytes > self._budget_bytes:
            raise RefusedError(
                BUSY,
                f"a text of {rows} tokens needs {rows * self._row_bytes} bytes of cache, more than the whole "
                f"budget of {self._budget_bytes}; raise cache_bytes",
            )
        for wanted in (max(rows, 2 * held.rows), rows):
            excess = self.charged_bytes + (wanted - held.rows) * self._row_bytes - self._budget_bytes
            if excess <= self._row_bytes * sum(idle.rows for idle in self._idle):
                self._evict(excess)
                held.rows = wanted
                return
        raise RefusedError(
            BUSY,
            f"{len(self._active)} sessions fill the cache budget of {self._budget_bytes} bytes",
            self._retry_after_s,
        )

    def _evict(self, excess_bytes: int) -> None:
        while excess_bytes > 0:
            oldest = next(iter(self._idle))
            self._idle.pop(oldest).cancel()
            excess_bytes -= oldest.rows * self._row_bytes

    def give_back(self, held: Held[_Cache]) -> None:
        """The slot is free; the cache stays for a while if it holds anything."""
        self._active.discard(held)
        if held.text:
            timer = asyncio.get_running_loop().call_later(self._idle_s, self._idle.pop, held, None)
            self._idle[held] = timer

    def clear(self) -> None:
        """Drop every cache."""
        for timer in self._idle.values():
            timer.cancel()
        self._idle.clear()
        self._active.clear()


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading tokens are equal."""
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))
