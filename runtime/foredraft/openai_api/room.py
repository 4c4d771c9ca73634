"""How many texts run at once, and how many may wait for that."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from foredraft.openai_api.errors import ApiError, invalid


class Room:
    """``running`` texts at once, and ``waiting`` in line; whoever comes then is told to try again."""

    def __init__(self, running: int, waiting: int) -> None:
        self.running = self.waiting = 0
        self._admitted = 0
        self._most = running + waiting
        self._places = asyncio.Semaphore(running)

    def full(self, texts: int = 1) -> str:
        """Why there is no room for so many more texts; empty where there is."""
        if self._admitted + texts <= self._most:
            return ""
        return f"{self._admitted} texts are running or waiting; there is no room for {texts} more"

    @contextmanager
    def admitted(self, texts: int) -> Iterator[None]:
        """Room for the texts of one request, from before it is worked on to its end. Raises ApiError (429)."""
        if texts > self._most:
            raise invalid(f"{texts} texts at once; this server takes {self._most}", "n")
        if reason := self.full(texts):
            raise ApiError(429, reason, code="rate_limit_exceeded")
        self._admitted += texts
        try:
            yield
        finally:
            self._admitted -= texts

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place, in its turn."""
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._places.release()
