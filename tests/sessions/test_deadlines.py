"""Deadlines: a text ends in time, with what is committed; nothing is left running, and nothing else changes."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import inf, nan

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.cloud.state import CloudState, Limits
from foredraft.edge.deadline import DEADLINE, Deadline
from foredraft.engines.scripted import ScriptedDrafter, ScriptedSlot, ScriptedTarget
from foredraft.errors import ConfigError, DeadlineError, RefusedError, UnknownNameError
from foredraft.protocol import messages
from foredraft.protocol.messages import Close, Commit, Open, Refused, Steer
from foredraft.protocol.ports import Guess, Pass, Prediction, Verdict
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node
from sessions.room import Room, SlowSlot, SlowTarget, collect, every_third_wrong, room, text, truth

POLICIES = ("cloud", "sync", "seed", "ahead", "auto")


@pytest.mark.simulated
@pytest.mark.parametrize("policy", POLICIES)
async def test_at_the_deadline_the_text_ends_with_what_is_committed_and_the_cloud_is_told(policy: str) -> None:
    here = room(SlowTarget(truth))
    session = here.session(policy, deadline=Deadline(5.5))
    clock = asyncio.get_running_loop()
    began_s = clock.time()
    shown = await collect(session)
    assert clock.time() - began_s == pytest.approx(5.5)
    assert 5 <= len(shown) < 40
    assert shown == text(len(shown))
    report = session.report()
    assert (report.tokens, report.finish_reason) == (shown, DEADLINE)
    assert here.said(Close)
    await here.left()


@pytest.mark.simulated
async def test_a_text_that_is_complete_in_time_is_what_it_is_without_a_deadline() -> None:
    here = room(SlowTarget(truth))
    session = here.session("cloud", 5, deadline=Deadline(6.0, "error"))
    assert await collect(session) == text(5)
    assert session.report().finish_reason == messages.LENGTH
    await here.left()


@pytest.mark.simulated
async def test_a_missed_deadline_is_an_error_where_that_is_wanted_and_what_was_shown_stays() -> None:
    here = room(SlowTarget(truth))
    session = here.session("cloud", deadline=Deadline(3.5, "error"))
    shown: list[int] = []
    with pytest.raises(DeadlineError, match=r"not complete within 3\.5 s: 3 tokens were committed"):
        await collect(session, shown.extend)
    assert shown == text(3)
    await here.left()


@pytest.mark.simulated
async def test_a_deadline_also_ends_the_wait_for_a_cloud_that_is_away() -> None:
    here = room(SlowTarget(truth))
    session = here.session("cloud", deadline=Deadline(2.5))

    def cut(tokens: list[int]) -> None:
        here.taps[-1].link.cut()

    assert await collect(session, cut) in (text(1), text(2))
    assert session.report().finish_reason == DEADLINE
    await here.left()


@pytest.mark.simulated
async def test_before_the_first_token_there_is_nothing_but_the_reason() -> None:
    here = room(SlowTarget(truth))
    session = here.session("sync", deadline=Deadline(0.25))
    assert await collect(session) == []
    report = session.report()
    assert (report.new_tokens, report.ttft_s, report.finish_reason) == (0, 0.0, DEADLINE)
    await here.left()


@pytest.mark.parametrize("within_s", [0.0, -1.0, 1e300, inf, nan])
def test_a_deadline_that_does_not_lie_ahead_is_refused(within_s: float) -> None:
    with pytest.raises(ConfigError, match="must lie ahead"):
        Deadline(within_s)


def test_another_way_to_meet_it_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="error, local, stop"):
        Deadline(1.0, "later")


# What the cloud knows of it


class TellingTarget(SlowTarget):
    """It says that a pass takes a second, as it does."""

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> ScriptedSlot:
        return TellingSlot(self.card.layers, self.script, self.exit_script)


class TellingSlot(SlowSlot):
    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        return msgspec.structs.replace(await super().verify(batch, on_exit), pass_s=1.0)


def told(pass_s: float) -> TellingTarget:
    """One of which it is known beforehand."""
    target = TellingTarget(truth)
    target._card = replace(target.card, pass_s=pass_s)
    return target


def orders(here: Room) -> list[Steer]:
    """All that the edge said of how to verify."""
    said = here.said(Open, Steer)
    return [one.steer if isinstance(one, Open) else one for one in said if isinstance(one, Open | Steer)]


@pytest.mark.simulated
async def test_the_opening_and_all_orders_after_it_say_what_is_left_and_never_when() -> None:
    here = room(TellingTarget(truth))
    session = here.session("sync", deadline=Deadline(20.0))
    await collect(session)
    left_ms = [steer.left_ms for steer in orders(here)]
    assert left_ms[0] == 20_000
    assert all(0 < later <= earlier for earlier, later in pairwise(left_ms))
    await here.left()


@pytest.mark.simulated
async def test_what_is_left_for_the_cloud_is_less_by_the_round_trip_that_was_seen() -> None:
    here = room(TellingTarget(truth))
    session = here.session("cloud", 3, deadline=Deadline(20.0))
    session.state.estimates.round_trip_s.take(0.5)
    await collect(session)
    assert orders(here)[0].left_ms == 19_500
    await here.left()


@pytest.mark.simulated
async def test_without_a_deadline_nothing_is_said_of_one() -> None:
    here = room(TellingTarget(truth))
    await collect(here.session("sync", 5))
    assert {steer.left_ms for steer in orders(here)} == {0}
    await here.left()


@pytest.mark.simulated
@pytest.mark.parametrize("policy", POLICIES)
async def test_a_cloud_that_can_do_no_pass_in_time_says_so_and_the_edge_ends_the_text_then(policy: str) -> None:
    here = room(TellingTarget(truth))
    session = here.session(policy, deadline=Deadline(5.5))
    clock = asyncio.get_running_loop()
    began_s = clock.time()
    shown = await collect(session)
    assert clock.time() - began_s == pytest.approx(5.0)  # and not after half a pass that nobody would have seen
    assert (session.report().finish_reason, shown) == (DEADLINE, text(len(shown)))
    assert [said.code for said in here.said(Refused) if isinstance(said, Refused)] == [messages.LATE]
    await here.left()


@pytest.mark.simulated
async def test_where_a_missed_deadline_is_an_error_it_comes_as_early() -> None:
    here = room(TellingTarget(truth))
    clock = asyncio.get_running_loop()
    began_s = clock.time()
    with pytest.raises(DeadlineError, match=r"not complete within 3\.5 s: 3 tokens were committed"):
        await collect(here.session("cloud", deadline=Deadline(3.5, "error")))
    assert clock.time() - began_s == pytest.approx(3.0)
    await here.left()


@pytest.mark.simulated
async def test_a_cloud_that_waits_for_a_draft_says_it_when_the_last_moment_for_a_pass_has_come() -> None:
    class Stuck(ScriptedDrafter):
        async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
            await asyncio.sleep(60.0)
            return [[]]

    here = room(told(1.0))
    session = here.session("sync", drafter=Stuck(every_third_wrong), deadline=Deadline(4.0))
    clock = asyncio.get_running_loop()
    began_s = clock.time()
    assert await collect(session) == []
    assert clock.time() - began_s == pytest.approx(3.0)
    await here.left()


def test_it_is_an_error_whichever_of_the_two_ends_sees_it_first() -> None:
    """The edge's own timer and the cloud's word may come at one moment, and either may be cut short by the other."""
    deadline = Deadline(4.0, "error")
    session = room(TellingTarget(truth)).session("sync", deadline=deadline)
    for _ in range(2):
        with pytest.raises(DeadlineError, match="0 tokens"):
            session._miss(deadline)


@pytest.mark.simulated
async def test_a_deadline_that_is_over_before_a_first_pass_is_refused_at_the_opening() -> None:
    here = room(told(1.0))
    clock = asyncio.get_running_loop()
    began_s = clock.time()
    assert await collect(here.session("cloud", deadline=Deadline(0.9))) == []
    assert clock.time() == began_s
    assert not here.said(Commit)
    await here.left()


@pytest.mark.simulated
async def test_an_edge_that_named_no_deadline_takes_late_for_a_refusal() -> None:
    here = room(TellingTarget(truth))
    session = here.session("cloud", 5)
    refused = Refused(1, messages.LATE, "too late")
    session.state.session = 1
    with pytest.raises(RefusedError, match="too late"):
        session._take(refused)


@pytest.mark.simulated
async def test_a_wall_clock_that_jumps_moves_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: (-1.0) ** next(jumps) * 1e9)
    here = room(TellingTarget(truth))
    session = here.session("auto", 6, deadline=Deadline(20.0))
    assert await collect(session) == text(6)
    assert session.report().finish_reason == messages.LENGTH
    await here.left()


ORDERS = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 10**9), st.floats(0.0, 1e6)), max_size=8)


@given(ORDERS)
def test_the_newest_orders_say_until_when_by_the_clouds_own_clock(said: list[tuple[int, int, float]]) -> None:
    opened = Open(1, messages.pack([1]), 1, 0.0, 0, 1.0, 0, 9, (), (), Steer(1, 1))
    state = CloudState(opened, ScriptedTarget(truth).card, Limits(), 0.0)
    newest, due_s = 1, inf
    for serial, left_ms, now_s in said:
        for _ in range(2):  # a repeated message changes nothing, however late it comes
            state.take_steer(Steer(1, serial, left_ms=left_ms), now_s)
        if serial > newest:
            newest, due_s = serial, now_s + left_ms / 1e3 if left_ms else inf
        assert state.due_s == state.last_start_s == due_s


def test_a_steer_from_before_deadlines_has_none() -> None:
    old = msgspec.msgpack.decode(messages.encode(Steer(1, 2, left_ms=7)))[:-1]
    steer = messages.decode(msgspec.msgpack.encode(old))
    assert isinstance(steer, Steer)
    assert steer.left_ms == 0
