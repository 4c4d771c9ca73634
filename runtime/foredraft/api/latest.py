"""Asks of which only the newest matters: for a control loop that looks ten times a second."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from foredraft.edge.session_report import SessionReport

if TYPE_CHECKING:
    from foredraft.api.edge import Edge


class Latest:
    """Made by ``Edge.latest``. At any time at most one text is written, and at most one ask waits: nothing queues up.

    An ask that comes while a text is being written ends that text, here and in the cloud. With ``let_finish`` the text
    goes on instead, and the ask waits for its end, unless a newer one takes its place: for answers that take longer
    than the time between two asks, or there would never be one.
    """

    def __init__(self, edge: "Edge", asked: dict[str, Any], *, let_finish: bool = False) -> None:
        self._edge, self._asked, self._let_finish = edge, asked, let_finish
        self._newest: object = None
        self._running: asyncio.Task[SessionReport] | None = None

    async def ask(self, prompt: str | Sequence[int], **asked: Any) -> SessionReport | None:
        """The whole text's report; None where a newer ask has overtaken this one. Options, errors: as ``generate``."""
        self._newest = mine = object()
        while self._running is not None:
            if not self._let_finish:
                self._running.cancel()
            await asyncio.wait([self._running])
            if self._newest is not mine:
                return None
        generation = self._edge.generate(prompt, **self._asked, **asked)
        self._running = task = asyncio.create_task(generation.finish(), name="latest")
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._newest is not mine and task.cancelled():
                return None
            task.cancel()
            await asyncio.wait([task])
            raise

    def _ended(self, task: "asyncio.Task[SessionReport]") -> None:
        if self._running is task:
            self._running = None
