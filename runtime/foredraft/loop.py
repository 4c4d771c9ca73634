"""The event loop that Foredraft runs on."""

import asyncio
import time

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
