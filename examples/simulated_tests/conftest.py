"""An edge and a cloud in simulated time: profiled devices, an emulated link, a made-up text.

The engines say what a script says, and take the time that the profiles' devices take. Replace
them by real models, and the same tests check the same code with real tokens.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import pytest

from foredraft.cloud.service import CloudService
from foredraft.edge.policy import Policy
from foredraft.edge.session import EdgeSession
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.profiles import Outage, load_profile
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling, StopRules
from foredraft_sim import SimLink, SimNetwork, Streams, uniform

SEED = 1
AGREEMENT = 0.8  # how often the draft names the target's token


def script(position: int) -> int:
    """The target's token at a position of the text."""
    return int(uniform(SEED, "text", position) * 30_000)


def guess_at(position: int, width: int) -> Sequence[Guess]:
    """The draft's guess at a position."""
    right = uniform(SEED, "draft", position) < AGREEMENT
    return [Guess(script(position) if right else 30_001, AGREEMENT)]


@pytest.fixture
def new_session() -> Callable[..., EdgeSession]:
    """Makes a session on a new link: ``new_session(policy, tokens=100, link="lte", outages=[])``."""
    serving: list[asyncio.Task[None]] = []

    def make(policy: Policy, *, tokens: int = 100, link: str = "lte", outages: Sequence[Outage] = ()) -> EdgeSession:
        target = PacedTarget(ScriptedTarget(script, layers=32), load_profile("a100-llama2-7b", "target"))
        drafter = PacedDrafter(ScriptedDrafter(guess_at), load_profile("jetson-nano-vicuna-68m", "draft"))
        service = CloudService(target)

        def accept(cloud_end: SimLink) -> None:
            serving.append(asyncio.create_task(service.handle(cloud_end), name="cloud"))

        profile = msgspec.structs.replace(load_profile(link, "link"), outages=tuple(outages))
        network = SimNetwork(profile, Streams(SEED), accept)
        return EdgeSession(
            [1, 2, 3],
            connect=network.connect,
            drafter=drafter,
            policy=policy,
            sampling=Sampling(temperature=0.0),
            rules=StopRules(max_new_tokens=tokens),
        )

    return make
