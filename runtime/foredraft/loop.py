"""The event loop that Foredraft runs on."""

import asyncio
import signal
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")

try:
    import uvloop
except ImportError:
    new_event_loop = asyncio.new_event_loop
else:

    class _FineLoop(uvloop.Loop):
        """uvloop with a clock that shows what happens within a millisecond.

        uvloop's own clock is read once per turn and counts whole milliseconds: the same clock, too
        coarse to tell how long a pass or a round trip took. Timers keep their resolution.
        """

        def time(self) -> float:
            return time.monotonic()

    def new_event_loop() -> asyncio.AbstractEventLoop:
        """uvloop's loop where uvloop exists, else asyncio's; for ``asyncio.Runner(loop_factory=...)``."""
        return _FineLoop()


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run ``main`` to its end on such a loop. Raises KeyboardInterrupt on Ctrl-C.

    Ctrl-C cancels it between two callbacks. ``asyncio.Runner`` alone cancels in the signal handler, so in the
    middle of a callback too, and a future that is about to get its result then complains.
    """
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    interrupted = False

    async def interruptible() -> _Result:
        loop = asyncio.get_running_loop()
        task = loop.create_task(main)

        def interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            task.cancel()

        if ours:
            loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            return await task
        finally:
            if ours:
                loop.remove_signal_handler(signal.SIGINT)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        try:
            return runner.run(interruptible())
        except asyncio.CancelledError:
            if interrupted:
                raise KeyboardInterrupt from None
            raise
