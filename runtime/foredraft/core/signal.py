"""A wake-up call between coroutines of one loop."""

import asyncio


class Signal:
    """Remembers that something changed until the one waiter has seen it.

    As asyncio's Event and timeout do together, at a third of their cost: it is waited for several
    times in each round.
    """

    def __init__(self) -> None:
        self._changed = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Something changed."""
        self._changed = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self, until_s: float | None = None) -> None:
        """Wait for a change since the last wait, at most until ``until_s`` of the loop's clock."""
        if not self._changed:
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            timer = None if until_s is None else loop.call_at(until_s, _wake, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        self._changed = False


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
