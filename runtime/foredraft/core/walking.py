"""The cloud's coroutine for one session: verify, or decode alone, until the text is complete.

What to do next is the walker's decision (``walker``); this only waits, for the target and for
the edge, and says what came of it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from foredraft.core import messages
from foredraft.core.colocated import CloudGrower, NewDrafter
from foredraft.core.events import Event, Observer, Value
from foredraft.core.messages import Chain, Grow, Hint, Steer, ToEdge
from foredraft.core.ports import Detokenizer, Pass, Reading, Seat, Target, Verdict
from foredraft.core.signal import Signal
from foredraft.core.tree import Node
from foredraft.core.walk import foresee
from foredraft.core.walker import TICK_S, Extend, Go, StopSearch, Timing, Wait, Walker
from foredraft.errors import RefusedError
from foredraft.stops import StopScanner

NewDetokenizer = Callable[[Sequence[int]], Detokenizer]
"""Makes the detokenizer of what comes after a prompt."""

RESUMED_AT_A_TIME = 256
"""Tokens of a resumed text searched for stop strings before others have a turn."""


@dataclass(slots=True)
class Counters:
    """What the service has done since it started."""

    sessions: int = 0
    active: int = 0
    passes: int = 0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    hints: int = 0
    refused: int = 0
    pass_s: float = 0.0


@dataclass(slots=True)
class Shared:
    """What all sessions of a service share."""

    target: Target
    new_detokenizer: NewDetokenizer | None
    observer: Observer | None
    new_drafter: NewDrafter | None = None
    counters: Counters = field(default_factory=Counters)


class Session:
    """One text being walked: the walker's state, its seat at the target, and its voice."""

    seat: Seat

    def __init__(self, shared: Shared, walker: Walker, say: Callable[[ToEdge], None], owner: str = "") -> None:
        """Made while the loop runs. ``owner``: whose texts may share their beginnings, an API key."""
        self.walker = walker
        self._shared = shared
        self._clock = asyncio.get_running_loop()
        self._stops: StopSearch | None = None
        self._grower: CloudGrower | None = None
        if shared.new_drafter is not None:
            self._grower = CloudGrower(shared.new_drafter, walker.tree, walker.sampling)
        self._say = say
        self._owner = owner
        self._changed = Signal()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._prefill_s = 0.0
        self._waited_s = 0.0  # for the edge, since the last commit
        self._draft_us: tuple[int, ...] = ()  # each draft step here, since the last commit
        self._heard = 0
        self._heard_at_s = walker.idle_since_s

    def take(self, message: Grow | Steer) -> None:
        """Change the state as the message says, and let the walker look again. Raises as the walker does."""
        self._heard += 1
        self._heard_at_s = self._clock.time()
        if isinstance(message, Steer):
            self.walker.take_steer(message)
        else:
            self.hang(message.chains)
        self._changed.set_last()

    def hang(self, chains: Sequence[Chain]) -> None:
        """Hang chains into the tree. Raises RefusedError or ProtocolError for what no honest edge sends."""
        for chain in chains:
            if (refused := self.walker.take_chain(chain)) is not None:
                self._shared.counters.refused += 1
                self._say(refused)

    async def run(self) -> None:
        """Take a seat, walk, and give it up whatever happens."""
        shared, counters = self._shared, self._shared.counters
        self._stops = await _stop_search(shared.new_detokenizer, self.walker)
        self.seat = await shared.target.seat(self.walker.tree.tokens, self.walker.sampling, self._owner)
        counters.sessions += 1
        counters.active += 1
        try:
            await self._walk()
        finally:
            counters.active -= 1
            self.seat.close()
            if self._grower is not None:
                await self._grower.close()
            if self._idle_timer is not None:
                self._idle_timer.cancel()

    async def _walk(self) -> None:
        """Verify, or decode alone, until the text is complete."""
        walker, clock = self.walker, self._clock
        chunk = self._shared.target.card.prefill_chunk
        if walker.finish:  # resumed at its very end: say so again
            self._say(messages.Commit(walker.session, walker.tree.position, b"", 0, 0, 0, 0, 0, walker.finish))
        while not walker.finish:
            now_s, cached = clock.time(), self.seat.cached
            plan = walker.plan(now_s)
            uncached = walker.tree.position - cached
            if uncached > chunk or (uncached > 1 and not isinstance(plan, Go)):
                await self._prefill(cached, min(chunk, uncached - 1))
            elif isinstance(plan, Go):
                await self._verify(plan, cached, now_s)
            elif isinstance(plan, Extend):
                await self._extend(plan.node)
            else:
                await self._wait(plan, now_s)

    async def _extend(self, node: Node) -> None:
        if self._grower is not None:  # else no such orders were accepted
            began_s = self._clock.time()
            await self._grower.extend(node)
            self._draft_us += (round((self._clock.time() - began_s) * 1e6),)

    async def _wait(self, plan: Wait, began_s: float) -> None:
        clock = self._clock
        if plan.idle and self._idle_timer is None:
            # One timer for many waits: their ends only move on, and it looks again when it comes too early.
            self._idle_timer = clock.call_at(plan.until_s, self._look_whether_idle)
        await self._changed.wait(None if plan.idle else plan.until_s)
        self._waited_s += clock.time() - began_s
        if plan.idle and self._idle_timer is None and clock.time() >= plan.until_s - TICK_S:
            raise RefusedError(messages.BUSY, "idle for too long; the place went to others", 0.0)

    def _look_whether_idle(self) -> None:
        self._idle_timer = None
        self._changed.set()

    async def _prefill(self, cached: int, count: int) -> None:
        self._prefill_s += await self.seat.prefill(self.walker.tree.tokens[cached : cached + count])

    async def _verify(self, plan: Go, cached: int, began_s: float) -> None:
        """One target pass: hints on the way, a commit at the end."""
        walker = self.walker
        position, exits = walker.tree.position, walker.steer.exits
        batch = Pass(
            trunk=tuple(walker.tree.tokens[cached:]),
            tokens=plan.tokens,
            parents=plan.parents,
            exits=tuple(sorted(set(exits))) if exits else (),
        )

        if self._shared.observer is not None:
            self._note("pass", position=position, nodes=len(plan.tokens), trunk=len(batch.trunk))
        verdict = await self.seat.verify(batch, partial(self._hint, batch, position, began_s))
        self._commit(plan, verdict, self._clock.time())

    def _hint(self, batch: Pass, position: int, began_s: float, reading: Reading) -> None:
        """An exit spoke, in the middle of a pass."""
        walker, after_s = self.walker, self._clock.time() - began_s
        if self._shared.observer is not None:
            self._note("exit", position=position, layer=reading.layer)
        foreseen, confidence = foresee(batch.tokens, batch.parents, reading, walker.steer.threshold)
        if foreseen:
            self._shared.counters.hints += 1
            packed = messages.pack(foreseen)
            self._say(Hint(walker.session, position, reading.layer, packed, min(1.0, confidence), after_s))

    def _commit(self, plan: Go, verdict: Verdict, now_s: float) -> None:
        heard_s = now_s - self._heard_at_s
        timing = Timing(self._prefill_s, self._waited_s, self._heard, heard_s, self._draft_us)
        commit, kept = self.walker.commit(plan, verdict, timing, now_s, self._stops)
        self._prefill_s = self._waited_s = 0.0
        self._draft_us = ()
        self.seat.keep(kept)
        if self._grower is not None:
            self._grower.advance(self.walker.tree.tokens[commit.position :])
        self._say(commit)
        counters = self._shared.counters
        counters.passes += 1
        counters.tokens += self.walker.tree.position - commit.position
        counters.drafted += commit.drafted
        counters.accepted += commit.accepted
        counters.pass_s += verdict.pass_s
        if self._shared.observer is not None:
            self._note(
                "verdict",
                position=commit.position,
                tokens=self.walker.tree.tokens[commit.position :],
                queue_s=verdict.queue_s,
                pass_s=verdict.pass_s,
            )

    def _note(self, kind: str, **data: Value) -> None:
        observer = self._shared.observer
        if observer is not None:
            now_s = self._clock.time()
            observer(Event(now_s, "cloud", str(self.walker.session), kind, data))


async def _stop_search(new_detokenizer: NewDetokenizer | None, walker: Walker) -> StopSearch | None:
    """What looks for the session's stop strings, fed with the text generated so far."""
    if not walker.rules.strings:
        return None
    if new_detokenizer is None:
        raise RefusedError(messages.INVALID, "this server has no tokenizer, so no stop strings")
    prompt, generated = walker.tree.tokens[: walker.start], walker.tree.tokens[walker.start :]
    detokenizer, scanner = new_detokenizer(prompt), StopScanner(walker.rules.strings)

    def search(token: int) -> bool:
        scanner.feed(detokenizer.step(token))
        return scanner.found

    for count, token in enumerate(generated, start=1):
        if search(token):
            walker.finish = messages.STOP
        if count % RESUMED_AT_A_TIME == 0:
            await asyncio.sleep(0)
    return search
