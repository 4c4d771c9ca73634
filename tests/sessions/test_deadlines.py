"""Deadlines: a text ends in time, with what is committed; nothing is left running, and nothing else changes."""

import asyncio
from math import inf, nan

import pytest

from foredraft.edge.deadline import DEADLINE, Deadline
from foredraft.errors import ConfigError, DeadlineError, UnknownNameError
from foredraft.protocol import messages
from foredraft.protocol.messages import Close
from sessions.room import SlowTarget, collect, room, text, truth

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
    with pytest.raises(DeadlineError, match=r"not complete after 3\.5 s: 3 tokens were committed"):
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


@pytest.mark.parametrize("within_s", [0.0, -1.0, inf, nan])
def test_a_deadline_that_does_not_lie_ahead_is_refused(within_s: float) -> None:
    with pytest.raises(ConfigError, match="must lie ahead"):
        Deadline(within_s)


def test_another_way_to_meet_it_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="error, local, stop"):
        Deadline(1.0, "later")
