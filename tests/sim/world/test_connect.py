"""``foredraft_sim.connect``: an application's own code against the API that it is deployed with, in simulated time."""

import asyncio
from pathlib import Path

import pytest

import foredraft
import foredraft_sim
from foredraft_sim.errors import SimulationError
from foredraft_sim.loop.event_loop import SimLoop
from foredraft_sim.pytest_plugin import ConnectSimulated
from foredraft_sim.world.connect import connect
from foredraft_sim.world.words import made_up_words, word
from foredraft_sim.world.world import World
from paths import SCENARIOS

ROBOT = SCENARIOS / "robot.toml"
PROMPT = "go to the red chair"


async def told(edge: foredraft.Edge, **options: object) -> foredraft.SessionReport:
    """What an application gets: it knows of no simulation."""
    return await edge.generate(PROMPT, max_new_tokens=40, **options).finish()  # type: ignore[arg-type]


async def alone(world: int, **options: object) -> foredraft.SessionReport:
    async with connect(ROBOT, seed=world) as edge:
        return await told(edge, **options)


def run(world: int, **options: object) -> foredraft.SessionReport:
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(alone(world, **options))


@pytest.mark.simulated
async def test_an_edge_in_simulated_time_is_an_edge_and_says_words() -> None:
    async with foredraft_sim.connect(str(ROBOT), seed=1) as edge:
        assert isinstance(edge, foredraft.Edge)
        pieces = [piece async for piece in edge.generate(PROMPT, max_new_tokens=40, seed=3)]
    text = "".join(piece.text for piece in pieces)
    assert len(text.split()) == 40
    assert text.replace(" ", "").isalpha()


def test_the_same_seed_is_the_same_world_and_another_seed_another() -> None:
    assert run(1) == run(1)
    assert run(1).text != run(2).text
    assert run(1, seed=5).tokens == run(1, seed=5, policy="cloud").tokens


@pytest.mark.simulated
async def test_time_passes_as_the_scenarios_devices_take_it() -> None:
    async with connect(ROBOT) as edge:
        began_s = edge.world.now_s
        report = await told(edge, policy="cloud")
        assert edge.world.now_s - began_s == pytest.approx(report.e2e_s, abs=0.2)
        assert report.tpot_s == pytest.approx(0.62, rel=0.05)  # a pass of the seed's robot


@pytest.mark.simulated
async def test_a_cut_link_costs_time_and_not_a_token() -> None:
    async with connect(ROBOT) as edge:
        calm = await told(edge, seed=7)
    async with connect(ROBOT) as edge:
        generation = edge.generate(PROMPT, max_new_tokens=40, seed=7)
        await anext(generation)
        edge.world.cut_link(duration_s=10.0)
        with pytest.raises(foredraft.UnreachableError, match="the network is down"):
            await edge.world.places(1)[0].connect()
        report = await generation.finish()
    assert report.tokens == calm.tokens
    assert report.reconnects > 0
    assert report.e2e_s > calm.e2e_s + 8.0


@pytest.mark.simulated
async def test_a_killed_server_comes_back_with_an_empty_memory_and_the_text_goes_on() -> None:
    async with connect(ROBOT, retry=foredraft.Retry(attempts=30)) as edge:
        generation = edge.generate(PROMPT, max_new_tokens=40, seed=7)
        await anext(generation)
        edge.world.kill_server()
        asyncio.get_running_loop().call_later(20.0, edge.world.start_server)
        report = await generation.finish()
        assert report.new_tokens == 40
        assert report.e2e_s > 20.0


@pytest.mark.simulated
async def test_a_server_that_stays_away_is_an_error_after_the_retries() -> None:
    async with connect(ROBOT, retry=foredraft.Retry(attempts=2)) as edge:
        edge.world.kill_server()
        with pytest.raises(foredraft.UnreachableError, match="server 0 does not answer"):
            await told(edge)


@pytest.mark.simulated
async def test_a_drained_server_is_left_and_found_again() -> None:
    async with connect(ROBOT) as edge:
        generation = edge.generate(PROMPT, max_new_tokens=40, seed=7)
        await anext(generation)
        edge.world.drain_server(retry_after_s=3.0)
        report = await generation.finish()
    assert report.new_tokens == 40
    assert report.reconnects >= 1


@pytest.mark.simulated
async def test_another_server_goes_on_with_the_text(tmp_path: Path) -> None:
    text = ROBOT.read_text(encoding="utf-8").replace("[cloud]\n", "[cloud]\nservers = 2\n", 1)
    (tmp_path / "two.toml").write_text(text, encoding="utf-8")
    async with connect(tmp_path / "two.toml") as edge:
        assert edge.world.servers == 2
        generation = edge.generate(PROMPT, max_new_tokens=40, seed=7)
        await anext(generation)
        edge.world.kill_server(0)
        report = await generation.finish()
    assert (report.new_tokens, report.reconnects) == (40, 1)


@pytest.mark.simulated
@pytest.mark.parametrize(("end", "policy"), [("cloud", "cloud"), ("edge", "sync")])
async def test_a_device_that_is_slowed_down_takes_longer_from_the_next_call_on(end: str, policy: str) -> None:
    async with connect(ROBOT) as edge:
        before = await told(edge, policy=policy, seed=7)
        edge.world.slow_down(end, 3.0)  # type: ignore[arg-type]
        after = await told(edge, policy=policy, seed=7)
        assert after.tokens == before.tokens
        key = {"cloud": "target_s", "edge": "draft_s"}[end]
        assert getattr(after, key) == pytest.approx(3.0 * getattr(before, key), rel=0.1)
        with pytest.raises(SimulationError, match="a factor above 0, not 0"):
            edge.world.slow_down("cloud", 0)


@pytest.mark.simulated
async def test_two_devices_share_a_world() -> None:
    async with World(ROBOT) as world, connect(world, device=0) as one, connect(world, device=1) as other:
        reports = await asyncio.gather(told(one, seed=7), told(other, seed=7))
        assert reports[0].tokens == reports[1].tokens
        assert reports[0].queue_s + reports[1].queue_s > 0.0  # one server, which serves one after the other


@pytest.mark.simulated
async def test_what_happens_can_be_read_from_the_world() -> None:
    async with connect(ROBOT) as edge:
        seen: list[str] = []
        await told(edge, policy="sync", observer=lambda event: seen.append(event.kind))
        kinds = {(event.where, event.kind) for event in edge.world.events}
    assert {("edge", "commit"), ("edge", "ship"), ("cloud", "pass"), ("cloud", "verdict")} <= kinds
    assert "commit" in seen


async def test_on_another_loop_it_says_how_to_get_simulated_time() -> None:
    with pytest.raises(SimulationError, match=r"@pytest.mark.simulated"):
        connect(ROBOT)


@pytest.mark.simulated
async def test_the_fixture_takes_scenarios_beside_the_test(simulated_edge: ConnectSimulated) -> None:
    way = Path("..") / ".." / ".." / "examples" / "scenarios" / "robot.toml"
    async with simulated_edge(str(way), seed=2) as edge:
        assert (await told(edge)).new_tokens == 40


def test_words_are_told_apart_and_read_back() -> None:
    words = made_up_words(5_000)
    assert len({word(token) for token in range(5_000)}) == 5_000
    stream = words.stream()
    assert "".join(map(stream.step, [0, 17, 4_999])) + stream.flush() == words.decode([0, 17, 4_999])
    assert words.encode("go to the chair") == words.encode("go  to the\nchair")
    assert max(words.encode("any text will do")) < 5_000


@pytest.mark.simulated
async def test_the_first_token_of_a_further_text_is_one_round_trip_away() -> None:
    async with connect(ROBOT) as edge:
        round_trip_s = edge.world.scenario.link.round_trip_s
        for _ in range(3):
            edge.world.events.clear()
            report = await told(edge, policy="cloud")
            first = next(event.data for event in edge.world.events if event.kind == "commit")
            in_the_cloud_s = float(first["queue_s"]) + float(first["prefill_s"]) + float(first["pass_s"])  # type: ignore[arg-type]
            assert report.ttft_s is not None
            assert report.ttft_s - in_the_cloud_s == pytest.approx(round_trip_s, rel=0.15)
