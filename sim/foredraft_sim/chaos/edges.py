"""The devices of a world: ``foredraft.Edge``, an application that writes its texts with it, and crashes of both."""

import asyncio
from functools import partial
from typing import Final

from foredraft.api.edge import Edge, connect
from foredraft.api.generation import Generation
from foredraft.edge.connections import Retry
from foredraft.edge.deadline import ERROR, STOP
from foredraft.edge.policy import Policy
from foredraft.engines.device import Device
from foredraft.engines.paced import PacedDrafter
from foredraft.errors import ForedraftError, RefusedError
from foredraft.policies import make_policy
from foredraft.protocol.messages import LENGTH
from foredraft.protocol.messages import STOP as STOP_TOKEN
from foredraft_sim.chaos.any_policy import AnyPolicy
from foredraft_sim.chaos.author import STOP_TOKENS
from foredraft_sim.chaos.engines import DRAFT, ChaosDrafter
from foredraft_sim.chaos.plan import Session
from foredraft_sim.chaos.seen import COMPLETE, LEFT, Written
from foredraft_sim.chaos.world import World

RETRY: Final = Retry(attempts=8, first_s=0.1, most_s=5.0)
OTHER_MODEL: Final = "OtherModel"
"""How the application ends a text that a crash interrupted, where another model is served when it is back."""


class EdgeLife:
    """One device, whose application writes the texts that the plan has for it; it may crash, and comes back."""

    def __init__(self, world: World, number: int) -> None:
        self._world, self._number = world, number
        self._plan = world.plan.edges[number]
        self._written = [Written(session) for session in world.plan.sessions if session.edge == number]
        world.seen.written += self._written
        self._began_by: dict[int, str] = {}  # by the request's seed: the model that was served when its text began
        self._drafters: set[ChaosDrafter] = set()
        self._running: asyncio.Task[None] | None = None
        self._away_s = 0.0

    async def run(self) -> None:
        """Write all texts to their ends, through all crashes."""
        while self._left_to_write():
            self._running = asyncio.create_task(self._write_all(), name=f"edge {self._number}")
            await asyncio.wait([self._running])
            if not self._running.cancelled():
                self._running.result()
            if self._away_s:
                await asyncio.sleep(self._away_s)
                self._away_s = 0.0

    def _left_to_write(self) -> list[Written]:
        return [written for written in self._written if not written.ending]

    def crash(self, for_s: float) -> None:
        """The process is gone, without a word to anybody; what was shown is known to whoever starts it again."""
        self._world.cut(f"edge {self._number}", for_s)
        self.quit(for_s)

    def quit(self, for_s: float) -> None:
        """The application ends amid its texts, and is started again later."""
        if self._running is not None and not self._running.done():
            self._away_s = for_s
            self._running.cancel()
            for written in self._left_to_write():
                written.parts.append(len(written.shown))

    @property
    def drafters(self) -> int:
        """How many drafters were made and never closed."""
        return len(self._drafters)

    async def _write_all(self) -> None:
        """One process of the application, from its start to its end."""
        places = [self._world.place(self._number, server) for server in self._plan.servers]
        draft, device = self._new_drafter, Device(spin_s=0.0)
        try:
            async with connect(*places, draft=partial(draft, device), api_key=self._plan.key, retry=RETRY) as edge:
                await asyncio.gather(*(self._write(edge, written) for written in self._left_to_write()))
        except ForedraftError as error:  # it met no server
            for written in self._left_to_write():
                _note_error(written, error)

    def _new_drafter(self, device: Device) -> PacedDrafter:
        drafter = ChaosDrafter(self._world.plan.models[0], self._plan.right, self._drafters.discard)
        self._drafters.add(drafter)
        return PacedDrafter(drafter, DRAFT, device=device)

    async def _write(self, edge: Edge, written: Written) -> None:
        """One text, or the rest of it."""
        clock, session = asyncio.get_running_loop(), written.session
        await asyncio.sleep(max(0.0, session.start_s - clock.time()))
        model = edge.ready.model_digest
        if written.shown and model != self._began_by[session.seed]:
            written.ending = OTHER_MODEL
            return
        self._began_by[session.seed] = model
        stopped = session.stops and written.shown and written.shown[-1] in STOP_TOKENS
        if stopped or len(written.shown) >= session.new_tokens:
            written.ending = COMPLETE  # all was shown; only the news of it was lost
            written.finish = STOP_TOKEN if stopped else LENGTH
            return
        began_s = clock.time()
        try:
            await self._show(edge, written)
        except ForedraftError as error:
            _note_error(written, error)
        written.took_s = clock.time() - began_s

    async def _show(self, edge: Edge, written: Written) -> None:
        """Show the text as it comes."""
        session, shown = written.session, written.shown
        before = len(shown)
        generation = edge.generate(
            [*session.prompt, *shown],
            policy=self._policy(session),
            max_new_tokens=session.new_tokens - before,
            at_deadline=STOP if session.seed % 2 else ERROR,
            seed=session.seed,
            end_marks=session.stops,
            deadline_s=session.deadline_s or None,
        )
        try:
            async with generation:
                await self._read(generation, written)
        finally:
            written.finish = generation.report.finish_reason
            written.reported = [*shown[:before], *generation.report.tokens]

    async def _read(self, generation: Generation, written: Written) -> None:
        session, shown, committed = written.session, written.shown, self._world.committed
        async for piece in generation:
            shown += piece.tokens
            written.ahead = max(written.ahead, len(session.prompt) + len(shown) - committed.get(session.seed, 0))
            if 0 < session.leave_after <= len(shown):
                written.ending = LEFT
                return
        written.ending = COMPLETE

    def _policy(self, session: Session) -> Policy:
        if session.policy == "any":
            return AnyPolicy(self._world.streams.stream(f"policy {session.seed}"))
        return make_policy(session.policy)


def _note_error(written: Written, error: ForedraftError) -> None:
    code = f" {error.code}" if isinstance(error, RefusedError) else ""
    written.ending, written.what = type(error).__name__ + code, str(error)
