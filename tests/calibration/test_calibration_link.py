"""A link's measurement: what a shaping proxy does is found again, and the server cannot be used for more."""

import asyncio
import contextlib
import json
import queue
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from foredraft.api.cloud import Cloud
from foredraft.bench.bytes_tokenizer import byte_tokenizer
from foredraft.calibration.link import fit_jitter, measured_link
from foredraft.cli.main import app
from foredraft.engines.scripted import ScriptedTarget
from foredraft.errors import ConfigError, LinkClosedError, RefusedError, UnreachableError
from foredraft.links import probing
from foredraft.links.probing import LinkSamples, Sunk, probe
from foredraft.links.proxy import ShapingProxy, run_proxy_in_thread
from foredraft.links.shaping import Shape
from foredraft.profiles import LinkProfile, load_profile, parse_profile, render_profile


def cloud(api_key: str = "") -> Cloud:
    tokenizer = byte_tokenizer()
    target = ScriptedTarget(lambda position: 1, tokenizer_digest=tokenizer.digest, vocab_size=257)
    return Cloud(target, tokenizer, api_key=api_key)


@pytest_asyncio.fixture(loop_scope="function")
async def url() -> AsyncIterator[str]:
    async with cloud() as ours, ours.listen() as where:
        yield where


async def through(url: str, up: Shape, down: Shape, seconds: float = 2.0) -> LinkSamples:
    with run_proxy_in_thread(ShapingProxy("127.0.0.1", int(url.rsplit(":", 1)[1]), up=up, down=down)) as proxy:
        return await probe(f"http://127.0.0.1:{proxy.port}", seconds=seconds)


async def test_a_known_delay_is_found_again_and_read_back(url: str, tmp_path: Path) -> None:
    measured = measured_link(await through(url, Shape(0.04), Shape(0.04)), "mine")
    profile = measured.profile
    assert 0.078 < profile.round_trip_s < 0.16  # a busy machine adds to it, nothing takes from it
    assert profile.up.delay_s == profile.down.delay_s
    back = parse_profile(render_profile(profile), tmp_path / "mine.toml")
    assert isinstance(back, LinkProfile)
    assert back.up == profile.up
    assert back.setup == profile.setup
    assert back.provenance["up.delay_s"].provenance == "derived"


async def test_known_rates_are_found_again_each_way(url: str) -> None:
    samples = await through(url, Shape(0.005, rate_bps=2e6), Shape(0.005, rate_bps=8e6), seconds=3.0)
    profile = measured_link(samples, "mine").profile
    assert profile.up.rate_bps == pytest.approx(2e6, rel=0.3)
    assert profile.down.rate_bps == pytest.approx(8e6, rel=0.3)


@pytest.mark.parametrize("shape", ["uniform", "exponential", "lognormal"])
def test_jitter_and_its_shape_are_found_in_round_trips(shape: str) -> None:
    draw = random.Random(1)
    jitters: dict[str, Callable[[], float]] = {
        "uniform": lambda: draw.uniform(0.0, 0.008),
        "exponential": lambda: draw.expovariate(1 / 0.004),
        "lognormal": lambda: draw.lognormvariate(-0.3466, 0.8326) * 0.004,
    }
    one = jitters[shape]
    least_s, jitter_s, found = fit_jitter(sorted(0.05 + one() + one() for _ in range(4000)))
    assert found == shape
    assert least_s == pytest.approx(0.05, rel=0.03)
    assert jitter_s == pytest.approx(0.004, rel=0.1)


def samples(round_trips_s: list[float]) -> LinkSamples:
    return LinkSamples("http://there", tuple(round_trips_s), (0.05,), (1e7,), (5e7,), 10.0)


def test_round_trips_later_by_a_timeout_are_taken_for_losses() -> None:
    measured = measured_link(samples([0.05 + 0.0001 * (step % 7) for step in range(98)] + [0.27, 0.28]), "mine")
    assert measured.suspects_s == (0.27, 0.28)
    loss = measured.profile.loss
    assert loss is not None
    assert loss.good_loss == loss.bad_loss == pytest.approx(0.01)  # half of it each way
    assert loss.rto_s == pytest.approx(0.2247, abs=0.001)
    assert measured.profile.round_trip_s == pytest.approx(0.0503, rel=0.01)  # they are no jitter
    assert measured.profile.provenance["loss.good_s"].provenance == "assumed"
    assert parse_profile(render_profile(measured.profile), Path("mine.toml")).kind == "link"


def test_without_late_echoes_no_loss_is_claimed() -> None:
    assert measured_link(samples([0.05, 0.051, 0.052, 0.06, 0.07, 0.09]), "mine").profile.loss is None


def test_too_few_echoes_are_no_measurement() -> None:
    with pytest.raises(ConfigError, match="give more --seconds"):
        measured_link(samples([0.05] * 4), "mine")


async def test_a_server_with_a_key_is_measured_with_the_key_only() -> None:
    async with cloud("secret") as ours, ours.listen() as where:
        with pytest.raises(RefusedError, match="API key"):
            await probe(where, seconds=1.0)
        assert len((await probe(where, seconds=1.0, api_key="secret")).round_trips_s) >= 9


async def test_nobody_there_is_said() -> None:
    with pytest.raises(UnreachableError, match="cannot reach"):
        await probe("http://127.0.0.1:9", seconds=1.0)
    with pytest.raises(ConfigError, match="not an address"):
        await probe("nonsense", seconds=1.0)


async def said_to(url: str, *messages: bytes | str) -> tuple[int | None, str]:
    """What the server closes the connection with after these messages."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/v1/probe") as ws:
        for message in messages:
            await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
        while True:
            answer = await ws.receive(timeout=20.0)
            if answer.type is aiohttp.WSMsgType.CLOSE:
                return answer.data, str(answer.extra)
            if answer.type is not aiohttp.WSMsgType.BINARY:
                return ws.close_code, ""


@pytest.mark.parametrize("message", [b"\x09", b"", "text", b"\x03\x00", b"\x03" + bytes(9)])
async def test_nonsense_is_refused_and_the_next_one_is_served(url: str, message: bytes | str) -> None:
    code, reason = await said_to(url, message)
    assert code == aiohttp.WSCloseCode.POLICY_VIOLATION
    assert "none of echo, sink, report, stream" in reason
    assert (await probe(url, seconds=1.0)).round_trips_s


async def test_nobody_gets_more_bytes_than_a_measurement_needs(url: str) -> None:
    code, reason = await said_to(url, bytes([probing.STREAM]) + (probing.MOST_BYTES + 1).to_bytes(4))
    assert code == aiohttp.WSCloseCode.POLICY_VIOLATION
    assert str(probing.MOST_BYTES) in reason
    code, _ = await said_to(url, bytes([probing.ECHO]) + bytes(probing.CHUNK_BYTES))
    assert code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_nobody_sends_more_than_a_measurement_needs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "MOST_BYTES", 40)
    code, reason = await said_to(url, *[bytes([probing.SINK]) + bytes(19)] * 3)
    assert code == aiohttp.WSCloseCode.POLICY_VIOLATION
    assert "may send 40 bytes" in reason


async def test_a_silent_peer_is_let_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "MOST_SILENT_S", 0.05)
    assert "nothing was asked" in (await said_to(url))[1]


async def test_one_connection_too_many_is_told_when_to_come_back(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        open_ones = [await session.ws_connect(f"{url}/v1/probe") for _ in range(probing.MOST_CONNECTIONS)]
        with pytest.raises(RefusedError, match="busy"):
            await probe(url, seconds=1.0)
        for ws in open_ones:
            await ws.close()


async def test_a_report_says_what_came_after_the_first_message(url: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/v1/probe") as ws:
        for size in (10, 20, 30):
            await ws.send_bytes(bytes([probing.SINK]) + bytes(size - 1))
        await ws.send_bytes(bytes([probing.REPORT]))
        sunk = msgspec.msgpack.decode(await ws.receive_bytes(), type=Sunk)
        assert sunk.size_bytes == 50
        assert sunk.seconds >= 0.0


async def test_a_server_that_goes_away_is_said(url: str) -> None:
    proxy = ShapingProxy("127.0.0.1", int(url.rsplit(":", 1)[1]), up=Shape(), down=Shape())
    with run_proxy_in_thread(proxy):
        told = asyncio.Event()
        measuring = asyncio.create_task(
            probe(f"http://127.0.0.1:{proxy.port}", seconds=30.0, progress=lambda share: told.set())
        )
        await told.wait()
        proxy.cut()
        with pytest.raises(LinkClosedError):
            await measuring


@contextlib.contextmanager
def served() -> Iterator[str]:
    """A server on a thread of its own, for commands, which run their own loop."""
    told: queue.Queue[str] = queue.Queue()
    with asyncio.Runner() as runner:
        loop, stop = runner.get_loop(), asyncio.Event()

        async def serve() -> None:
            async with cloud() as ours, ours.listen() as where:
                told.put(where)
                await stop.wait()

        thread = threading.Thread(target=runner.run, args=(serve(),))
        thread.start()
        try:
            yield told.get(timeout=30.0)
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()


def test_the_command_writes_what_it_measured(tmp_path: Path) -> None:
    with served() as where:
        arguments = ["profile", "link", "--server", where, "--name", "mine", "--seconds", "1", "--out", str(tmp_path)]
        result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    profile = load_profile(tmp_path / "mine.toml", "link")
    assert said["jitter_s"] == profile.up.jitter_s
    assert said["round_trip_s"]["min"] <= said["round_trip_s"]["p50"] <= said["round_trip_s"]["max"]
    assert said["echoes"] == len(said["round_trips_s"]) >= 9


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--server", "http://127.0.0.1:9"), 1, "cannot reach"),
        (("--server", "nonsense"), 2, "not an address"),
        (("--server", "http://127.0.0.1:9", "--seconds", "0"), 2, "seconds"),
        (("--server", "http://127.0.0.1:9", "--name", "a/b"), 2, "no name of a file"),
    ],
)
def test_what_cannot_be_measured_is_said_and_nothing_is_written(
    arguments: tuple[str, ...], code: int, said: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, ["profile", "link", *arguments, "--out", str(tmp_path)])
    assert result.exit_code == code
    assert said in result.output
    assert not list(tmp_path.iterdir())
