"""How many texts run at once, and how many may wait for that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from foredraft.openai_api.errors import ApiError


class Room:
    """``running`` texts at once, and ``waiting`` in line; whoever comes then is told to try again."""

    def __init__(self, running: int, waiting: int) -> None:
        self.running = self.waiting = 0
        self._most_waiting = waiting
        self._most_running = running
        self._places = asyncio.Semaphore(running)

    def admit(self, texts: int) -> None:
        """Raise ApiError (429) where there is no room for so many more."""
        free = self._most_running - self.running - self.waiting + self._most_waiting
        if texts > free:
            said = f"{self.running} texts are running and {self.waiting} are waiting; there is no room for {texts} more"
            raise ApiError(429, said, code="rate_limit_exceeded")

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
