"""A server's process in a world: the door, the service, the keys and the device of ``foredraft serve``.

All but HTTP is what is deployed. What the process says in the log is told apart by the context that its tasks run in.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from foredraft.cloud.service import CloudService
from foredraft.engines.device import Device
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.errors import RefusedError
from foredraft.keys import KeyFile, Keys
from foredraft.protocol.messages import BUSY, UNAUTHORIZED
from foredraft.server.app import Server
from foredraft.server.door import RETRY_S
from foredraft_sim.chaos.engines import CACHE_TOKENS, DRAFT, TARGET, ChaosDrafter, ChaosTarget
from foredraft_sim.chaos.plan import Plan
from foredraft_sim.chaos.seen import Conversation, Process
from foredraft_sim.chaos.storm import Storm, StormyLink, stormy_link
from foredraft_sim.chaos.watch import SPEAKING, Ear, Told, WatchedTarget

SHUTDOWN_S: Final = 1.0
"""So long the handlers of connections may take to end after the door has closed them, as in ``server.door``."""


class Life:
    """One process. ``seen``: what is seen of it."""

    def __init__(
        self,
        seen: Process,
        plan: Plan,
        key_file: Path | None,
        now: Callable[[], datetime],
        spent: Callable[[str], bool],
        told: Told,
    ) -> None:
        """``key_file``: None where no keys are needed. ``now``: the wall clock. ``spent``: whether the key of
        that name has been none for so long that every server that looks knows.
        """
        self.seen = seen
        self._told = told
        self._context = copy_context()
        self._context.run(SPEAKING.set, seen)
        self._links: list[StormyLink] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._met = 0
        self._connected: Counter[str] = Counter()
        self.keys = Keys.of("") if key_file is None else KeyFile(key_file, now=now)
        self.target = ChaosTarget(seen.model, plan.cache_rows)
        self._device = Device(spin_s=0.0)
        self._engine = PacedTarget(self.target, TARGET, device=self._device)
        self._engine.divide(self.keys.weight_of, self.keys.cache_of)
        watched = WatchedTarget(self._engine, seen, spent)
        self._service = CloudService(watched, keys=self.keys, new_drafter=self._new_drafter if plan.drafts else None)
        self.door = Server(self._service, card=watched.card, tokenizer_json=b"", keys=self.keys)
        self._watcher = self._start(self.door.watch_keys())

    def _new_drafter(self) -> PacedDrafter:
        return PacedDrafter(ChaosDrafter(self.seen.model, 0.7, lambda drafter: None), DRAFT, device=self._device)

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a coroutine as one of this process."""
        loop = asyncio.get_running_loop()
        name = f"server {self.seen.server}"
        task: asyncio.Task[None] = loop.create_task(work, name=name, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def let_in(self, secret: str, storm: Storm) -> StormyLink:
        """A connection, as HTTP's door lets it in. Raises RefusedError as ``links.websocket.connect`` does."""
        key = self.keys.find(secret)
        if key is None:
            raise RefusedError(UNAUTHORIZED, f"server {self.seen.server} does not accept this API key")
        if (refused := self._context.run(self.door.refuses, key)) is not None:
            raise RefusedError(BUSY, f"server {self.seen.server}: {refused[1]}", float(RETRY_S))
        edge, cloud = stormy_link(storm, remembers=False)
        heard = Conversation(0, key.name)
        self.seen.conversations.append(heard)
        self._links.append(cloud)
        place = ExitStack()  # taken here and now, as the door of ``server.app`` does
        place.enter_context(self.door.place(key))
        place.enter_context(self._counted(key.name))
        self._start(self._serve(Ear(cloud, heard, self._told), heard)).add_done_callback(lambda _: place.close())
        return edge

    @contextmanager
    def _counted(self, key: str) -> Iterator[None]:
        self._connected[key] += 1
        most = self.seen.connected
        most[key] = max(most.get(key, 0), self._connected[key])
        try:
            yield
        finally:
            self._connected[key] -= 1

    async def _serve(self, ear: Ear, heard: Conversation) -> None:
        self._met += 1
        heard.number = self._met
        await self.door.serve(ear)

    async def kill(self) -> None:
        """The process is gone from here on; what its coroutines still do nobody sees."""
        self.seen.killed = True
        for link in self._links:
            link.cut()
        await self._end_tasks()

    async def end(self) -> None:
        """End as ``foredraft serve`` does when it is told to; up to the end it looks at the keys."""
        await self._start(self.door.drain())
        if left := self._tasks - {self._watcher}:
            await asyncio.wait(left, timeout=SHUTDOWN_S)
        await self._end_tasks()
        await self._engine.close()

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def note_what_is_left(self) -> None:
        """Nobody needs it any more: what does it still hold?"""
        pool, counts = self.target.pool, self._service.counters
        held = {
            "connections in the service": self._service.connections,
            "connections at the door": self.door.connections(),
            "sessions that are active": counts.active,
            "places in the cache": pool.active,
            "rows of the cache that sessions hold": pool.held_rows - pool.idle_rows,
        }
        self.seen.left += [f"server {self.seen.server}: {count} {what}" for what, count in held.items() if count]
        try:
            self._engine.reserve(CACHE_TOKENS)
        except RefusedError as error:
            self.seen.left.append(f"server {self.seen.server}: memory of the device: {error}")
        else:
            self._engine.release(CACHE_TOKENS)
