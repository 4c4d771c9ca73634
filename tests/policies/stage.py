"""A synthetic pair on emulated devices and an emulated link, with everything that the target was asked."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from foredraft.core.cloud import CloudService
from foredraft.core.edge import EdgeSession
from foredraft.core.estimates import Estimates
from foredraft.core.local import LocalText
from foredraft.core.policy import Policy
from foredraft.core.ports import Link, Pass, Reading, Seat, Target, TargetCard, Verdict
from foredraft.core.report import SessionReport
from foredraft.core.sampling import Sampling, StopRules
from foredraft.engines.device import Device
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.policies import make_policy
from foredraft.profiles import Outage
from foredraft_sim.loop import SimLoop
from foredraft_sim.network import SimNetwork
from foredraft_sim.policy_bench.setting import Times, scaled_pair
from foredraft_sim.streams import Streams
from foredraft_sim.synthetic import SyntheticDrafter, SyntheticPair, SyntheticTarget

ROBOT = Times(pass_s=0.62, flat_tokens=32, step_s=0.072, round_trip_s=0.12)
USELESS = SyntheticPair(ranks=(0.002, 0.001), exits=((8, 0.55),))


@dataclass
class Played:
    """What came of a session: its report, each pass with the moment it began, and the edge's state."""

    report: SessionReport
    passes: list[tuple[float, int, Pass]]
    session: EdgeSession

    def drafted_at(self) -> list[int]:
        """The positions of the passes that verified draft nodes."""
        return [position for _, position, batch in self.passes if batch.tokens]


@dataclass
class _Watched:
    """A target that remembers what it was asked."""

    inner: Target
    passes: list[tuple[float, int, Pass]] = field(default_factory=list)

    @property
    def card(self) -> TargetCard:
        return self.inner.card

    async def seat(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> Seat:
        return _WatchedSeat(self, await self.inner.seat(tokens, sampling, owner))

    async def close(self) -> None:
        await self.inner.close()


@dataclass
class _WatchedSeat:
    target: _Watched
    inner: Seat

    @property
    def cached(self) -> int:
        return self.inner.cached

    async def prefill(self, tokens: Sequence[int]) -> float:
        return await self.inner.prefill(tokens)

    async def verify(self, batch: Pass, on_exit: Callable[[Reading], None]) -> Verdict:
        position = self.inner.cached + len(batch.trunk)
        self.target.passes.append((asyncio.get_running_loop().time(), position, batch))
        return await self.inner.verify(batch, on_exit)

    def keep(self, nodes: Sequence[int]) -> None:
        self.inner.keep(nodes)

    def close(self) -> None:
        self.inner.close()


def play(
    policy: str | Policy,
    place: Times = ROBOT,
    *,
    pair: SyntheticPair | None = None,
    acceptance: float = 0.58,
    new_tokens: int = 64,
    seed: int = 1,
    outages: tuple[Outage, ...] = (),
    local: LocalText | None = None,
    estimates: Estimates | None = None,
    luck: Callable[[int], float] | None = None,
) -> Played:
    """One session in simulated time. ``luck``: how many times as long as it should a pass of so many nodes takes."""
    pair = pair or scaled_pair(acceptance)

    async def run() -> Played:
        def residual(kind: str) -> float:
            return 1.0 if luck is None else luck(len(target.passes[-1][2].tokens))

        engine = PacedTarget(SyntheticTarget(pair), place.target(), device=Device(spin_s=0.0), residual=residual)
        target = _Watched(engine)
        service = CloudService(target)
        serving: list[asyncio.Task[None]] = []

        def accept(link: Link) -> None:
            serving.append(asyncio.create_task(service.handle(link)))

        network = SimNetwork(msgspec.structs.replace(place.link(), outages=outages), Streams(seed), accept)
        session = EdgeSession(
            [1],
            connect=network.connect,
            drafter=PacedDrafter(SyntheticDrafter(pair), place.draft(), device=Device(spin_s=0.0)),
            policy=make_policy(policy) if isinstance(policy, str) else policy,
            sampling=Sampling(seed=seed),
            rules=StopRules(new_tokens),
            local=local,
            estimates=estimates,
        )
        shown = [token async for tokens in session.stream() for token in tokens]
        await asyncio.gather(*serving)
        assert shown == [pair.truth(seed, position) for position in range(1, new_tokens + 1)]
        return Played(session.report(), target.passes, session)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(run())
