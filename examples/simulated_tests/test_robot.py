"""A robot that walks while it is told how. In a project of your own, ``Robot`` would be imported.

``Robot`` takes a ``foredraft.Edge``. In production that comes from ``foredraft.connect(URL)``; here it comes from the
fixture ``simulated_edge``, and minutes pass in milliseconds.
"""

import asyncio

import pytest

import foredraft
from foredraft_sim.pytest_plugin import ConnectSimulated

SILENCE_S = 1.5  # how long the robot goes on without a word


class Robot:
    """Walks as long as words come, and stands still while none has come for SILENCE_S."""

    def __init__(self, edge: foredraft.Edge) -> None:
        self._edge = edge
        self.log: list[tuple[float, str]] = []

    async def follow(self, instruction: str, words: int) -> str:
        """Do what the answer to ``instruction`` says; the answer."""
        clock, heard = asyncio.get_running_loop().time, ""
        answer = aiter(self._edge.generate(instruction, policy="sync", max_new_tokens=words, seed=1))
        coming = asyncio.ensure_future(anext(answer, None))
        while True:
            done, _ = await asyncio.wait([coming], timeout=SILENCE_S)
            if not done:
                self.log.append((clock(), "stop"))
            piece = await coming
            if piece is None:
                return heard
            if not self.log or self.log[-1][1] == "stop":
                self.log.append((clock(), "walk"))
            heard += piece.text
            coming = asyncio.ensure_future(anext(answer, None))


@pytest.mark.simulated
async def test_over_lte_it_sets_out_within_a_second_and_never_stops(simulated_edge: ConnectSimulated) -> None:
    async with simulated_edge("lte.toml") as edge:
        robot = Robot(edge)
        answer = await robot.follow("go to the red chair", words=300)
    assert len(answer.split()) == 300
    assert [what for _, what in robot.log] == ["walk"]
    assert robot.log[0][0] < 1.0


@pytest.mark.simulated
async def test_when_the_network_breaks_it_stops_in_time_and_then_walks_on(simulated_edge: ConnectSimulated) -> None:
    async with simulated_edge("lte.toml") as edge:
        asyncio.get_running_loop().call_at(2.0, edge.world.cut_link, 5.0)
        robot = Robot(edge)
        answer = await robot.follow("go to the red chair", words=300)
    assert len(answer.split()) == 300  # nothing is lost: the session reconnects and goes on
    assert [what for _, what in robot.log] == ["walk", "stop", "walk"]
    stopped_s, walked_on_s = robot.log[1][0], robot.log[2][0]
    assert stopped_s <= 2.0 + SILENCE_S + 0.01
    assert walked_on_s >= 7.0


@pytest.mark.simulated
async def test_when_the_server_is_killed_it_hears_the_rest_from_the_one_that_takes_its_place(
    simulated_edge: ConnectSimulated,
) -> None:
    async with simulated_edge("lte.toml") as calm, simulated_edge("lte.toml") as edge:
        undisturbed = await Robot(calm).follow("go to the red chair", words=200)
        loop = asyncio.get_running_loop()
        loop.call_later(2.0, edge.world.kill_server)
        loop.call_later(4.0, edge.world.start_server)
        assert await Robot(edge).follow("go to the red chair", words=200) == undisturbed
