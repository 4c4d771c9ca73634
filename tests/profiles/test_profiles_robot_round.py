"""The seed's robot, put together from shipped profiles: its synchronous round takes what the seed says."""

import asyncio
from itertools import pairwise

import pytest

from foredraft.cloud.service import CloudService
from foredraft.edge.session import EdgeSession
from foredraft.engines.device import Device
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.policies import make_policy
from foredraft.profiles import load_profile
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling, StopRules
from foredraft_sim import SimLink, SimLoop, SimNetwork, Streams


@pytest.mark.parametrize(
    ("draft", "target", "link", "round_s"),
    [
        ("orin-go2-qwen2-vl-2b", "a100-qwen2-vl-7b", "robot", 1.028),
        ("robot-5-draft", "robot-5-target", "robot-5", 0.2056),
    ],
)
def test_a_synchronous_round_of_the_real_session_takes_what_the_profiles_add_up_to(
    draft: str, target: str, link: str, round_s: float
) -> None:
    async def main() -> None:
        script = ScriptedTarget(lambda position: position % 50, layers=28)
        cloud = CloudService(PacedTarget(script, load_profile(target, "target"), device=Device(spin_s=0.0)))
        serving: list[asyncio.Task[None]] = []

        def accept(end: SimLink) -> None:
            serving.append(asyncio.create_task(cloud.handle(end)))

        guesser = ScriptedDrafter(lambda position, width: [Guess(position % 50 if position % 3 else 99, 0.6)])
        session = EdgeSession(
            [1, 2, 3],
            connect=SimNetwork(load_profile(link, "link"), Streams(1), accept).connect,
            drafter=PacedDrafter(guesser, load_profile(draft, "draft"), device=Device(spin_s=0.0)),
            policy=make_policy("sync:gamma=4"),
            sampling=Sampling(),
            rules=StopRules(max_new_tokens=40),
        )
        came_s = [asyncio.get_running_loop().time() async for _ in session.stream()]
        rounds_s = [after - before for before, after in pairwise(came_s)]
        assert rounds_s[:-2] == pytest.approx([round_s] * (len(rounds_s) - 2))  # the last ones draft less
        assert len(rounds_s) > 8
        await asyncio.gather(*serving, return_exceptions=True)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main())
