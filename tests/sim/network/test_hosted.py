"""What messages take of the device that their end runs on."""

import asyncio

import pytest

from foredraft.engines.device import Device
from foredraft.engines.paced import PacedDrafter
from foredraft.engines.scripted import ScriptedDrafter
from foredraft.links.memory import memory_link
from foredraft.profiles import DraftProfile, Line, Model, Range
from foredraft.protocol.messages import Close
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree
from foredraft_sim.network.hosted import hosted

REACH = Range(new_tokens=(1, 64), context=(0, 4096))
PROFILE = DraftProfile(
    name="d", title="d", kind="draft", model=Model(name="m", layers=2), draft_step=Line(base_s=1.0, range=REACH)
)
pytestmark = pytest.mark.simulated


async def step_s(device: Device, tree: DraftTree) -> float:
    drafter = PacedDrafter(ScriptedDrafter(lambda position, width: [Guess(1, 0.5)]), PROFILE, device=device)
    await drafter.begin(tree.tokens, Sampling())
    clock = asyncio.get_running_loop()
    began_s = clock.time()
    await drafter.draft([tree.root], 1)
    return clock.time() - began_s


async def test_messages_in_the_middle_of_a_call_make_it_end_later() -> None:
    device = Device(spin_s=0.0)
    edge, cloud = memory_link()
    here = hosted(edge, device, 0.1)
    step = asyncio.create_task(step_s(device, DraftTree([1])))
    await asyncio.sleep(0.5)
    assert here.post(Close(1))  # sent
    await here.send(Close(2))
    await cloud.send(Close(3))
    assert await here.receive() == Close(3)
    assert await step == pytest.approx(1.3)


async def test_messages_before_a_call_hold_it_up_only_as_long_as_they_last() -> None:
    device = Device(spin_s=0.0)
    edge, _ = memory_link()
    here = hosted(edge, device, 0.1)
    await here.send(Close(1))
    assert await step_s(device, DraftTree([1])) == pytest.approx(1.1)
    await here.send(Close(2))
    await asyncio.sleep(0.2)
    assert await step_s(device, DraftTree([1])) == pytest.approx(1.0)


async def test_where_messages_take_nothing_the_link_is_what_it_was() -> None:
    edge, _ = memory_link()
    assert hosted(edge, Device(), 0.0) is edge
