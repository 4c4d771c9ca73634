"""Several edges on one service: each gets its own text, and what one does is no other's trouble."""

import asyncio

import pytest

from foredraft.cloud.connection import MAX_UNSENT
from foredraft.cloud.state import Limits
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.protocol import messages
from foredraft.protocol.messages import Commit
from sessions.room import Room, collect, every_third_wrong, room, text, truth, watching

POLICIES = ("cloud", "sync", "seed", "ahead")


async def test_a_dozen_edges_each_get_their_text_and_the_counters_add_up() -> None:
    target = ScriptedTarget(truth, exit_script=lambda layer, position: (truth(position), 0.9), exits=(2, 4))
    here = room(target)
    sessions = [here.session(POLICIES[n % 4], 20 + n, drafter=ScriptedDrafter(every_third_wrong)) for n in range(12)]
    shown = await asyncio.gather(*(collect(session) for session in sessions))
    assert shown == [text(20 + n) for n in range(12)]
    await here.left()
    counters, reports = here.service.counters, [session.report() for session in sessions]
    assert counters.sessions == 12
    assert counters.tokens == sum(20 + n for n in range(12))
    assert counters.passes == sum(report.passes for report in reports)
    assert counters.drafted == sum(report.drafted for report in reports)
    assert counters.accepted == sum(report.accepted for report in reports)


@pytest.mark.simulated
async def test_edges_that_die_or_stop_reading_stall_no_other() -> None:
    here = room()
    steer = messages.Steer(1, 1, alone_until=1 << 40)
    endless = messages.Open(1, messages.pack([1, 2, 3]), 3, 0.0, 0, 1.0, 0, 4 * MAX_UNSENT, (), (), steer)
    for number in range(4):  # they ask for a long text; two never read it, two are cut off
        link = await here.connect()
        await link.send(messages.Hello(messages.PROTOCOL_VERSION))
        await link.send(endless)
        if number % 2:
            here.taps[-1].link.cut()
    shown = await asyncio.gather(*(collect(here.session(policy, 60)) for policy in POLICIES * 2))
    assert shown == [text(60)] * 8
    await here.left()
    assert here.service.counters.sessions >= 8


@pytest.mark.simulated
async def test_an_idle_edge_gives_its_place_to_others() -> None:
    here = room(limits=Limits(idle_s=30.0))
    link = await here.connect()
    await link.send(messages.Hello(messages.PROTOCOL_VERSION))
    await link.send(messages.Open(1, messages.pack([1]), 1, 0.0, 0, 1.0, 0, 9, (), (), messages.Steer(1, 1)))
    assert isinstance(await link.receive(), messages.Ready)
    assert await collect(here.session("sync", 10)) == text(10)
    assert here.service.counters.active == 1
    refused = await link.receive()
    assert isinstance(refused, messages.Refused)
    assert (refused.code, refused.retry_after_s) == (messages.BUSY, 0.0)
    assert asyncio.get_running_loop().time() == pytest.approx(30.0)
    assert here.service.counters.active == 0
    await link.close()
    await here.left()


@pytest.mark.simulated
async def test_when_one_edge_leaves_in_the_middle_the_others_do_not_notice() -> None:
    here = room()
    async with watching(here.session("cloud", 500)) as shown:
        others = asyncio.gather(*(collect(here.session(policy, 40)) for policy in POLICIES))
        await shown.get()
    assert await others == [text(40)] * 4
    await here.left()
    refused = [m for tap in here.taps[1:] for m in tap.down if isinstance(m, messages.Refused)]
    # What was shipped ahead may hang from a branch that a commit on its way has killed.
    assert {message.code for message in refused} <= {messages.UNKNOWN_ANCHOR}


@pytest.mark.simulated
async def test_one_connection_carries_one_text_after_another() -> None:
    here: Room = room()
    link = await here.connect()
    await link.send(messages.Hello(messages.PROTOCOL_VERSION))
    await link.receive()
    for number in range(1, 4):
        steer = messages.Steer(number, 1, alone_until=100)
        await link.send(messages.Open(number, messages.pack([1]), 1, 0.0, 0, 1.0, 0, 5, (), (), steer))
        shown: list[int] = []
        while True:
            commit = await link.receive()
            assert isinstance(commit, Commit)
            assert commit.session == number
            shown += messages.unpack(commit.tokens)
            if commit.finish:
                break
        assert shown == [truth(position) for position in range(1, 6)]
    await link.close()
    await here.left()
