"""The edge's coroutine: draft what the policy wants drafted, and attach it to the tree.

What to draft next is the policy's decision, and what becomes of it the state's (``state``). This only
waits, for the drafter and for something to happen. It knows of no link and no cloud.
"""

import asyncio
import logging
from collections.abc import Callable

from foredraft.edge.local import LocalText
from foredraft.edge.policy import Policy
from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step
from foredraft.errors import ForedraftError
from foredraft.protocol.events import Note
from foredraft.protocol.ports import Drafter
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.signal import Signal

log = logging.getLogger("foredraft.edge")


class _FailedError(Exception):
    """The drafter failed. What a policy raises is another matter, and ends the session."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Drafting:
    """One session's drafting. A step in flight always runs to its end. A drafter that fails ends it, not the session.

    ``on_change`` is called whenever the policy is asked anew: after steps, and when the drafter comes to rest.
    ``local``: what is shown while the cloud is out of reach.
    """

    __slots__ = ("_begun", "_changed", "_drafter", "_local", "_note", "_on_change", "_policy", "_state")

    def __init__(
        self,
        state: EdgeState,
        drafter: Drafter,
        policy: Policy,
        on_change: Callable[[], None],
        local: LocalText | None = None,
        note: Note | None = None,
    ) -> None:
        self._state = state
        self._drafter = drafter
        self._policy = policy
        self._on_change = on_change
        self._local = local
        self._note = note
        self._changed = Signal()
        self._begun = False  # the drafter knows the text

    def wake(self) -> None:
        """Something happened that may change what to draft."""
        self._state.resting = False
        self._changed.set()

    def advance(self, tokens: list[int]) -> None:
        """The committed text grew."""
        if self._begun:
            self._drafter.advance(tokens)

    async def run(self, sampling: Sampling) -> None:
        """Draft whenever the policy wants to; should the drafter fail, say so and rest: the cloud goes on alone."""
        try:
            await self._run(sampling)
        except _FailedError as failed:
            error = failed.error
            ours = isinstance(error, ForedraftError)
            log.warning(
                "the drafter failed, and the text goes on without drafts: %s", error, exc_info=None if ours else error
            )
            if self._note is not None:
                self._note("draft_failed", {"reason": str(error)})
        self._begun = False
        self._state.draftless = self._state.resting = True
        self._on_change()
        await asyncio.Event().wait()  # the session ends it

    async def _run(self, sampling: Sampling) -> None:
        """Draft for ever. The cloud is at work meanwhile: what it commits before the drafter is ready comes after."""
        state, drafter, on_change, clock = self._state, self._drafter, self._on_change, asyncio.get_running_loop()
        known = state.tree.position
        try:
            await drafter.begin(state.tree.tokens[:known], sampling)
            self._begun = True
            if missed := state.tree.tokens[known:]:
                drafter.advance(missed)
        except Exception as error:
            raise _FailedError(error) from error
        most = drafter.max_nodes_per_step
        step = self._next_step(most)
        while True:
            if step is None:
                state.resting = True
                on_change()
                await self._changed.wait()
                step = self._next_step(most)
                continue
            began_s = clock.time()
            try:
                guesses = await drafter.draft(step.nodes, step.width)
                state.now_s = now_s = clock.time()
                took_s = now_s - began_s
                grown = state.drafted(step, guesses, took_s)
            except Exception as error:
                raise _FailedError(error) from error
            if self._note is not None:
                counts = len(step.nodes), len(grown)
                self._note("draft", {"began_s": began_s, "took_s": took_s, "nodes": counts[0], "grown": counts[1]})
            on_change()
            step = self._next_step(most)

    def _next_step(self, most: int) -> Step | None:
        """The policy's next step, as far as it can lead anywhere: each node is asked about once per width."""
        state, local = self._state, self._local
        if state.finish or state.room <= 0:
            return None
        step = local.step(state) if local is not None and local.away else self._policy.step(state)
        if step is None:
            return None
        nodes, width = step.nodes, step.width
        if len(nodes) == 1 and nodes[0].alive and nodes[0].expanded < width:
            return step
        useful = [node for node in nodes if node.alive and node.expanded < width]
        return Step(tuple(useful[:most]), width) if useful else None
