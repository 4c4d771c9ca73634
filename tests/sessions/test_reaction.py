"""Nothing but the step in flight delays the reaction to a message."""

import asyncio
from collections.abc import Sequence

import pytest

from foredraft.engines.scripted import ScriptedDrafter
from foredraft.protocol.messages import Open, unpack
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node
from sessions.room import PROMPT, SlowTarget, perfect, room, text, truth, watching


class GatedDrafter(ScriptedDrafter):
    """Each step, and the beginning, waits until it is let through; ``started`` are the steps' nodes."""

    def __init__(self) -> None:
        super().__init__(perfect)
        self.gate = asyncio.Semaphore(0)
        self.begin_gate = asyncio.Event()
        self.begin_gate.set()
        self.started: asyncio.Queue[list[Node]] = asyncio.Queue()
        self.advanced: list[int] = []

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        await self.begin_gate.wait()
        self.advanced = list(tokens)

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        self.started.put_nowait(list(nodes))
        await self.gate.acquire()
        return await super().draft(nodes, width)

    def advance(self, tokens: Sequence[int]) -> None:
        self.advanced += tokens


@pytest.mark.simulated
async def test_a_commit_is_taken_while_a_draft_step_is_in_flight_and_the_next_step_follows_at_once() -> None:
    drafter = GatedDrafter()
    here = room(SlowTarget(truth, exit_script=lambda layer, position: (truth(position), 1.0), exits=(4,)))
    session = here.session("seed:gamma=2", 30, drafter=drafter)
    state = session.state
    async with watching(session) as shown:
        for _ in range(2):  # the first chain; it is sent, and a hint comes back
            await drafter.started.get()
            drafter.gate.release()
        (hinted,) = await drafter.started.get()  # a step below the hint begins, and stays in flight
        assert hinted.position == len(PROMPT) + 3
        assert await shown.get() == text(3)  # the commit is taken and its tokens are shown
        assert state.position == len(PROMPT) + 3
        assert state.root is hinted
        assert drafter.advanced == PROMPT + text(3)
        assert drafter.started.empty()
        drafter.gate.release()
        (after,) = await drafter.started.get()  # the next step, below what the first one found
        assert after.parent is state.root
        drafter.gate.release()
        assert await shown.get() == text(6)[3:]
    assert [unpack(chain.tokens) for chain in here.chains()[:2]] == [text(2), text(5)[3:]]


@pytest.mark.simulated
async def test_a_commit_that_went_elsewhere_drops_what_a_step_in_flight_was_for() -> None:
    drafter = GatedDrafter()
    here = room(SlowTarget(truth, exit_script=lambda layer, position: (2, 1.0), exits=(4,)))  # hints wrongly
    session = here.session("seed:gamma=1", 30, drafter=drafter)
    async with watching(session) as shown:
        await drafter.started.get()
        drafter.gate.release()
        (hinted,) = await drafter.started.get()
        assert hinted.token == 2
        assert await shown.get() == text(2)
        assert not hinted.alive
        drafter.gate.release()
        (after,) = await drafter.started.get()
        assert after is session.state.root
        assert len(session.state.tree) == 0


@pytest.mark.simulated
async def test_a_chain_that_is_ready_is_sent_while_a_step_is_in_flight() -> None:
    drafter = GatedDrafter()
    here = room(SlowTarget(truth))
    session = here.session("ahead:width=1,batch=1", 30, drafter=drafter)
    async with watching(session) as shown:
        for _ in range(3):
            await drafter.started.get()
            drafter.gate.release()
        await drafter.started.get()  # in flight from here on
        tokens = await shown.get()
        assert tokens == text(len(tokens))
        sent = [token for chain in here.chains() for token in unpack(chain.tokens)]
        assert sent == text(3)


@pytest.mark.simulated
async def test_the_cloud_begins_while_the_drafter_still_reads_the_prompt() -> None:
    drafter = GatedDrafter()
    drafter.begin_gate.clear()
    here = room(SlowTarget(truth))
    session = here.session("ahead", 5, drafter=drafter)
    async with watching(session) as shown:
        assert await shown.get() == text(1)  # decoded alone
        assert here.said(Open)
        assert drafter.advanced == []
        drafter.begin_gate.set()
        assert await drafter.started.get() == [session.state.root]
        assert drafter.advanced == PROMPT + text(session.state.position - len(PROMPT))
    await here.left()
