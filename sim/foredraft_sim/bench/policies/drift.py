"""The world changes in the middle of a session: how much is lost until ``auto`` has noticed.

At token 96 the round trip, or the acceptance, steps to another value. What counts is the time of
the next 64 tokens. The policy that knew is ``auto`` as well; at the step it is given the
estimates of a whole session in the world that now begins.
"""

import asyncio
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from foredraft.cloud.service import CloudService
from foredraft.edge.estimates import Estimates
from foredraft.edge.session import EdgeSession
from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.engines.device import Device
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.policies.auto import AutoPolicy
from foredraft.protocol.messages import Message
from foredraft.protocol.ports import Guess, Link
from foredraft.protocol.sampling import Sampling, StopRules
from foredraft.protocol.tree import Node
from foredraft_sim.bench.policies.setting import Outcome, Times, scaled_pair
from foredraft_sim.loop.event_loop import SimLoop
from foredraft_sim.network.network import SimNetwork
from foredraft_sim.streams import Streams
from foredraft_sim.tokens.synthetic import SyntheticDrafter, SyntheticPair, SyntheticTarget

STEP_AT: Final = 96
FOLLOWING: Final = 64
_END: Final = STEP_AT + FOLLOWING
PASS_S: Final = 0.03
STEP_S: Final = 0.003


@dataclass(frozen=True, slots=True)
class Drift:
    """From one round trip and acceptance to another."""

    says: str
    round_trip_s: float
    later_round_trip_s: float
    acceptance: float
    later_acceptance: float


@dataclass
class _World:
    """Which side of the step the session is on."""

    drift: Drift
    seed: int
    changed_s: float | None = None

    def extra_s(self) -> float:
        """What one way has grown by."""
        drift = self.drift
        return 0.0 if self.changed_s is None else (drift.later_round_trip_s - drift.round_trip_s) / 2


@dataclass
class _WatchingPolicy:
    """``auto``, under which the world changes at a position; given ``estimates``, it then knows the new one."""

    world: _World
    estimates: Estimates | None
    inner: AutoPolicy = field(default_factory=AutoPolicy)
    name: str = "auto"

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """As ``auto``; asked after every message, so here the step is noticed."""
        if self.world.changed_s is None and state.position - state.start >= STEP_AT:
            self.world.changed_s = asyncio.get_running_loop().time()
            if self.estimates is not None:
                state.estimates = deepcopy(self.estimates)
        return self.inner.verify_params(state)

    def step(self, state: EdgeState) -> Step | None:
        """As ``auto``."""
        return self.inner.step(state)

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """As ``auto``."""
        return self.inner.ship(state)


class _ChangingDrafter(SyntheticDrafter):
    """After the step its choices are right as often as the later acceptance says; it goes on to say the former."""

    def __init__(self, before: SyntheticPair, after: SyntheticPair) -> None:
        super().__init__(before)
        self._after, self._seed = after, 0

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A request begins."""
        await super().begin(tokens, sampling)
        self._seed = sampling.seed

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """The choices at each node's position; the prompt is one token."""
        said = await super().draft(nodes, width)
        for index, node in enumerate(nodes):
            position = node.position
            if position > STEP_AT:
                said[index] = [
                    Guess(self._after.choice(self._seed, position, rank), guess.probability)
                    for rank, guess in enumerate(said[index])
                ]
        return said


@dataclass
class _ChangingLink(Link):
    """One end of a link of which each message takes longer from some moment on."""

    inner: Link
    extra_s: Callable[[], float]
    _late: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def send(self, message: Message) -> None:
        """Send, the extra time later."""
        extra_s = self.extra_s()
        if not extra_s:
            await self.inner.send(message)
            return

        async def later() -> None:
            await asyncio.sleep(extra_s)
            await self.inner.send(message)

        task = asyncio.create_task(later())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    def post(self, message: Message) -> bool:
        """As the link inside, while nothing is late."""
        return not self.extra_s() and self.inner.post(message)

    async def receive(self) -> Message:
        """As the link inside."""
        return await self.inner.receive()

    async def listen(self, take: Callable[[Message], bool]) -> None:
        """As the link inside."""
        await self.inner.listen(take)

    async def close(self) -> None:
        """As the link inside; what is late is lost."""
        for task in self._late:
            task.cancel()
        await self.inner.close()

    @property
    def bytes_sent(self) -> int:
        """As the link inside."""
        return self.inner.bytes_sent

    @property
    def bytes_received(self) -> int:
        """As the link inside."""
        return self.inner.bytes_received


def try_drift(drift: Drift, policy: str, seed: int) -> Outcome:
    """What the 64 tokens after the step take; ``policy``: "auto", or "knew"."""
    estimates = None if policy == "auto" else _learned(drift, seed)
    return _run(drift, seed, _END, estimates)[0]


@lru_cache(maxsize=8)
def _learned(drift: Drift, seed: int) -> Estimates:
    """The estimates of a whole session in the world after the step."""
    later = Drift("", *(drift.later_round_trip_s,) * 2, *(drift.later_acceptance,) * 2)
    return _run(later, seed + 1_000_000, 512, None)[1]


def _run(drift: Drift, seed: int, new_tokens: int, estimates: Estimates | None) -> tuple[Outcome, Estimates]:
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(_session(_World(drift, seed), new_tokens, estimates))


async def _session(world: _World, new_tokens: int, estimates: Estimates | None) -> tuple[Outcome, Estimates]:
    drift = world.drift
    before, after = scaled_pair(drift.acceptance), scaled_pair(drift.later_acceptance)
    place = Times(PASS_S, 8, STEP_S, drift.round_trip_s)
    target = PacedTarget(SyntheticTarget(before), place.target(), device=Device(spin_s=0.0), headroom_tokens=new_tokens)
    drafter = PacedDrafter(_ChangingDrafter(before, after), place.draft(), device=Device(spin_s=0.0))
    service = CloudService(target)
    network = SimNetwork(place.link(), Streams(world.seed))
    serving: list[asyncio.Task[None]] = []

    async def connect() -> Link:
        edge, cloud = network.pair()
        serving.append(asyncio.create_task(service.handle(_ChangingLink(cloud, world.extra_s))))
        return _ChangingLink(edge, world.extra_s)

    session = EdgeSession(
        [1],
        connect=connect,
        drafter=drafter,
        policy=_WatchingPolicy(world, estimates),
        sampling=Sampling(seed=world.seed),
        rules=StopRules(new_tokens),
    )
    clock = asyncio.get_running_loop()
    ended_s = 0.0
    async for _ in session.stream():
        ended_s = clock.time()
    await asyncio.gather(*serving)
    took_s = ended_s - (world.changed_s or 0.0)
    report = session.report()
    figures = {"bytes_up": 0.0, "bytes_down": 0.0, "target_s": report.target_s, "draft_s": report.draft_s}
    outcome = Outcome(took_s, FOLLOWING, float(report.passes), 0.0, **figures, energy_j=None, cost_usd=None)
    return outcome, session.state.estimates
