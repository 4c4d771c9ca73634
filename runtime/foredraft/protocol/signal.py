"""Waiting, cheaply: for a change that another coroutine signals, and for a moment of the loop's clock.

Each round waits about ten times, and asyncio's Event, timeout and sleep make a future and a turn of the loop
for each. A waiter here is what the task itself waits for, by the protocol of asyncio's futures
(``asyncio.isfuture``): whatever ends the wait wakes the task directly.
"""

import asyncio
import types
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any


class _Waiter:
    """What one task waits for, until ``end`` or until ``_until_s``; afterwards it can be waited for again."""

    _asyncio_future_blocking = True
    _loop: asyncio.AbstractEventLoop
    _until_s: float | None = None
    _wake: "Callable[[_Waiter], object] | None" = None
    _context: Context | None = None
    _timer: asyncio.TimerHandle | None = None
    _cancelled: bool

    def end(self) -> None:
        """Wake the task, if it waits."""
        wake = self._wake
        if wake is not None:
            self._wake = None
            self._loop.call_soon(wake, self, context=self._context)
            if self._timer is not None:
                self._timer.cancel()

    # What a task asks of a future

    def add_done_callback(self, wake: "Callable[[_Waiter], object]", *, context: Context | None = None) -> None:
        """The task begins to wait, and tells how it is woken."""
        self._wake, self._context = wake, context
        if self._until_s is not None:
            self._timer = self._loop.call_at(self._until_s, wake, self, context=context)

    def result(self) -> None:
        """The task is awake."""
        self._wake = self._timer = None  # a timer that has fired refers to us: not both ways, or there is a cycle
        if self._cancelled:
            self._cancelled = False
            raise asyncio.CancelledError

    def cancel(self, msg: object = None) -> bool:
        """The task is being cancelled; whether the wait was still on."""
        if self._wake is None:
            return False
        self._cancelled = True
        self.end()
        return True


class Pause(_Waiter):
    """``await Pause(loop, delay_s)``: as asyncio.sleep, at a third of its cost; ``loop`` is the running one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay_s: float) -> None:
        self._loop, self._delay_s = loop, delay_s
        self._cancelled = False

    def __await__(self) -> Generator[Any, None, None]:
        yield self

    def add_done_callback(self, wake: "Callable[[_Waiter], object]", *, context: Context | None = None) -> None:
        """The task begins to wait, and tells how it is woken."""
        self._wake, self._context = wake, context
        self._timer = self._loop.call_later(self._delay_s, wake, self, context=context)


class Signal(_Waiter):
    """Remembers that something changed until the one waiter has seen it. It belongs to the loop of the first wait.

    ``pending``: something changed since the last wait.
    """

    _loop: asyncio.AbstractEventLoop | None  # type: ignore[assignment]

    def __init__(self) -> None:
        self._loop = self._timer = self._wake = self._context = self._until_s = None
        self.pending = self._cancelled = False

    def set(self) -> None:
        """Something changed."""
        self.pending = True
        if self._wake is not None:
            self.end()

    def set_last(self) -> None:
        """As ``set``, as the last thing that a callback does: outside of any task, who waits goes on at once."""
        self.pending = True
        wake, context = self._wake, self._context
        if wake is None:
            return
        if asyncio.current_task(self._loop) is not None:
            self.end()
            return
        self._wake = None
        if self._timer is not None:
            self._timer.cancel()
        if context is None:
            wake(self)
        else:
            context.run(wake, self)

    @types.coroutine
    def wait(self, until_s: float | None = None) -> Generator[Any, None, None]:
        """Wait for a change since the last wait, at most until ``until_s`` of the loop's clock."""
        if not self.pending:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._until_s = until_s
            self._asyncio_future_blocking = True  # the task that takes it sets it back
            yield self
        self.pending = False
