"""A signal from whatever changed something to the one coroutine that waits for it."""

import asyncio


class Signal:
    """Remembers that something changed until the one waiter has seen it.

    asyncio's Event would need clearing, and a timeout around each wait. ``pending``: something changed since the
    last wait.
    """

    __slots__ = ("_waiter", "pending")

    def __init__(self) -> None:
        self.pending = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Something changed."""
        self.pending = True
        if self._waiter is not None:
            _wake(self._waiter)

    async def wait(self, until_s: float | None = None) -> None:
        """Wait for a change since the last wait, at most until ``until_s`` of the loop's clock."""
        if not self.pending:
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            timer = None if until_s is None else loop.call_at(until_s, _wake, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        self.pending = False


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
