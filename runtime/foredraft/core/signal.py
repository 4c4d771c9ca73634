"""A wake-up call between coroutines of one loop."""

import asyncio


class Signal:
    """Remembers that something changed until the one waiter has seen it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Something changed."""
        self._event.set()

    async def wait(self, until_s: float | None = None) -> None:
        """Wait for a change since the last wait, at most until ``until_s`` of the loop's clock."""
        if until_s is None or self._event.is_set():
            await self._event.wait()
        else:
            try:
                async with asyncio.timeout_at(until_s):
                    await self._event.wait()
            except TimeoutError:
                return
        self._event.clear()
