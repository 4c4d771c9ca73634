"""Steps that a policy orders together: it is asked nothing in between, unless something else happens."""

import asyncio
from collections.abc import Callable, Sequence

from foredraft.edge.drafting import Drafting
from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.engines.scripted import ScriptedDrafter
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling, StopRules
from foredraft.protocol.tree import Node


class Threes:
    """Chains of three at once, up to nine."""

    name = "threes"

    def __init__(self) -> None:
        self.asked_at: list[int] = []

    def verify_params(self, state: EdgeState) -> VerifyParams:
        return VerifyParams()

    def ship(self, state: EdgeState) -> Sequence[Node]:
        return ()

    def step(self, state: EdgeState) -> Step | None:
        chain = state.likeliest()
        self.asked_at.append(len(chain))
        tip = chain[-1] if chain else state.root
        return None if len(chain) >= 9 or tip.barren else Step((tip,), more=2)


class Drafter(ScriptedDrafter):
    """Guesses up to a position; ``wake`` is called in the middle of the step at ``wakes_at``."""

    wake: Callable[[], None]

    def __init__(self, ideas_until: int = 1000, wakes_at: int = -1) -> None:
        super().__init__(lambda position, width: [Guess(position, 0.5)] if position < ideas_until else [])
        self._wakes_at = wakes_at

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        if nodes[0].position == self._wakes_at:
            self.wake()
        return await super().draft(nodes, width)


async def grown(drafter: Drafter, policy: Threes) -> EdgeState:
    """What has grown when the policy has come to rest."""
    state = EdgeState([1, 2], StopRules(100))
    rested = asyncio.Event()
    drafting = Drafting(state, drafter, policy, lambda: rested.set() if state.resting else None)
    drafter.wake = drafting.wake
    task = asyncio.create_task(drafting.run(Sampling()))
    await rested.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return state


async def test_the_policy_is_asked_once_for_all_of_them() -> None:
    policy = Threes()
    state = await grown(Drafter(), policy)
    assert [node.token for node in state.likeliest()] == list(range(2, 11))
    assert policy.asked_at == [0, 3, 6, 9]


async def test_it_is_asked_again_when_something_happens_meanwhile() -> None:
    policy = Threes()
    state = await grown(Drafter(wakes_at=6), policy)
    assert len(state.likeliest()) == 9
    assert policy.asked_at[:3] == [0, 3, 5]


async def test_it_is_asked_again_when_the_drafter_has_no_idea() -> None:
    policy = Threes()
    state = await grown(Drafter(ideas_until=6), policy)
    assert len(state.likeliest()) == 4
    assert policy.asked_at == [0, 3, 4]
