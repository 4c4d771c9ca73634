"""A robot that walks while it is told how. In a project of your own, ``walk`` would be imported."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from foredraft import make_policy
from foredraft.edge.session import EdgeSession
from foredraft.profiles import Outage

SILENCE_S = 1.5  # how long the robot goes on without a word

Log = list[tuple[float, str]]


async def walk(words: AsyncGenerator[list[int], None], log: Log) -> list[int]:
    """Walk as long as tokens come; stand still while none has come for SILENCE_S."""
    loop = asyncio.get_running_loop()
    heard: list[int] = []
    coming = asyncio.ensure_future(anext(words, None))
    while True:
        done, _ = await asyncio.wait([coming], timeout=SILENCE_S)
        if not done:
            log.append((loop.time(), "stop"))
            await asyncio.wait([coming])
        tokens = await coming
        if tokens is None:
            return heard
        if not log or log[-1][1] == "stop":
            log.append((loop.time(), "walk"))
        heard += tokens
        coming = asyncio.ensure_future(anext(words, None))


@pytest.mark.simulated
async def test_over_lte_it_sets_out_within_a_second_and_never_stops(new_session: Callable[..., EdgeSession]) -> None:
    log: Log = []
    heard = await walk(new_session(make_policy("sync"), tokens=300).stream(), log)
    assert len(heard) == 300
    assert [what for _, what in log] == ["walk"]
    assert log[0][0] < 1.0


@pytest.mark.simulated
async def test_when_the_network_breaks_it_stops_in_time_and_then_walks_on(
    new_session: Callable[..., EdgeSession],
) -> None:
    broken = Outage(start_s=2.0, duration_s=5.0, cuts=True)
    log: Log = []
    session = new_session(make_policy("sync"), tokens=300, outages=[broken])
    heard = await walk(session.stream(), log)
    assert len(heard) == 300  # nothing is lost: the session reconnects and goes on
    assert [what for _, what in log] == ["walk", "stop", "walk"]
    stopped_s, walked_on_s = log[1][0], log[2][0]
    assert stopped_s <= broken.start_s + SILENCE_S + 0.01
    assert walked_on_s >= broken.start_s + broken.duration_s


@pytest.mark.simulated
@pytest.mark.parametrize("link", ["lan", "wifi", "lte", "3g", "robot"])
async def test_it_hears_the_same_words_over_any_network(new_session: Callable[..., EdgeSession], link: str) -> None:
    near = await walk(new_session(make_policy("sync"), tokens=50, link="lan").stream(), [])
    assert await walk(new_session(make_policy("seed"), tokens=50, link=link).stream(), []) == near
