"""The shaped link: its arithmetic on made-up clocks, and the proxy over real sockets."""

import asyncio
import contextlib
import errno
import os
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.errors import ConfigError, LinkError, UnknownNameError
from foredraft.links.forwarding import QUEUE_BYTES
from foredraft.links.proxy import ShapingProxy, run_proxy_in_thread
from foredraft.links.proxy_process import proxy_process
from foredraft.links.shaping import DISTRIBUTIONS, Shape, Shaper, percentile

FAST = Shape()


def test_a_delay_is_added_to_each_chunk() -> None:
    shaper = Shaper(Shape(delay_s=0.5), "seed")
    assert shaper.due_s(10.0, 1000, 0.0) == 10.5
    assert shaper.due_s(10.1, 1000, 10.5) == pytest.approx(10.6)


def test_a_rate_makes_chunks_wait_for_the_line_and_then_the_delay() -> None:
    shaper = Shaper(Shape(delay_s=1.0, rate_bps=8000), "seed")  # 1000 bytes per second
    assert shaper.due_s(0.0, 500, 0.0) == 1.5
    assert shaper.due_s(0.0, 500, 1.5) == 2.0
    assert shaper.due_s(5.0, 100, 2.0) == pytest.approx(6.1)


def test_the_end_of_a_stream_takes_no_time_on_the_line() -> None:
    shaper = Shaper(Shape(rate_bps=8000), "seed")
    shaper.due_s(0.0, 500, 0.0)
    assert shaper.due_s(0.1, 0, 0.5) == 0.5


@given(
    arrivals=st.lists(st.tuples(st.floats(0, 0.1), st.integers(0, 2000)), max_size=40),
    jitter_s=st.floats(0, 0.05),
    rate_bps=st.none() | st.floats(1e4, 1e9),
    distribution=st.sampled_from(sorted(DISTRIBUTIONS)),
)
def test_order_and_rate_hold_under_any_jitter(
    arrivals: list[tuple[float, int]], jitter_s: float, rate_bps: float | None, distribution: str
) -> None:
    shape = Shape(0.01, jitter_s, distribution, rate_bps)
    shaper, again = Shaper(shape, "seed"), Shaper(shape, "seed")
    now_s = due_s = on_line_s = 0.0
    for gap_s, size in arrivals:
        now_s += gap_s
        previous_s = due_s
        due_s = shaper.due_s(now_s, size, previous_s)
        assert due_s == again.due_s(now_s, size, previous_s)  # the seed decides
        assert due_s >= max(previous_s, now_s)
        on_line_s += 0.0 if rate_bps is None else size * 8 / rate_bps
        assert due_s >= on_line_s * (1 - 1e-9)


@pytest.mark.parametrize(
    ("name", "mean", "deviation"), [("uniform", 0, 3**-0.5), ("normal", 0, 1), ("exponential", 1, 1)]
)
def test_jitter_has_the_named_distribution(name: str, mean: float, deviation: float) -> None:
    rng = random.Random(1)
    draws = [DISTRIBUTIONS[name](rng, 0.002) / 0.002 for _ in range(20_000)]
    average = sum(draws) / len(draws)
    assert average == pytest.approx(mean, abs=0.04)
    assert (sum((draw - average) ** 2 for draw in draws) / len(draws)) ** 0.5 == pytest.approx(deviation, rel=0.05)


def test_shapes_that_make_no_sense_are_refused() -> None:
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=f"delay_s is {value}"):
            Shape(delay_s=value)
        with pytest.raises(ConfigError, match=f"jitter_s is {value}"):
            Shape(jitter_s=value)
        with pytest.raises(ConfigError, match=f"rate_bps is {value}"):
            Shape(rate_bps=value)
    with pytest.raises(ConfigError, match="rate_bps is 0"):
        Shape(rate_bps=0)
    with pytest.raises(UnknownNameError, match="did you mean 'normal'"):
        Shape(distribution="norml")


def test_percentiles() -> None:
    assert percentile([], 0.5) == 0.0
    assert percentile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0], 1.0) == 3.0


@asynccontextmanager
async def shaped_echo(up: Shape, down: Shape) -> AsyncIterator[ShapingProxy]:
    """An echo server behind a proxy that runs in a thread."""
    async with echo_server() as port:
        proxy = ShapingProxy("127.0.0.1", port, up=up, down=down, seed=3)
        with run_proxy_in_thread(proxy):
            yield proxy


@asynccontextmanager
async def echo_server() -> AsyncIterator[int]:
    handlers: set[asyncio.Task[None] | None] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except OSError:  # the proxy cut it
            pass
        finally:
            await hang_up(writer)

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*(task for task in handlers if task is not None))


async def exchange(proxy: ShapingProxy, data: bytes) -> bytes:
    """What comes back for ``data``, up to the end of the connection. Raises ConnectionError where it breaks."""
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)

    async def send() -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    try:
        _, received = await asyncio.gather(send(), reader.read())
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        raise ConnectionResetError from error  # the reset came between two calls: nobody is there to say goodbye to
    finally:
        await hang_up(writer)
    return received


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection, broken or not."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("up", "down"),
    [
        (FAST, FAST),
        (Shape(delay_s=0.002, jitter_s=0.002), Shape(delay_s=0.001, jitter_s=0.003, distribution="exponential")),
        (Shape(rate_bps=80e6), Shape(delay_s=0.001, jitter_s=0.001, distribution="normal")),
    ],
    ids=["open", "jitter", "rate"],
)
async def test_bytes_arrive_whole_and_in_order_both_ways(up: Shape, down: Shape) -> None:
    data = random.Random(5).randbytes(3 * QUEUE_BYTES)
    async with shaped_echo(up, down) as proxy:
        assert await exchange(proxy, data) == data
        report = proxy.report()
    assert report.up.size_bytes == report.down.size_bytes == len(data)


async def test_connections_do_not_mix() -> None:
    texts = [bytes([number]) * 50_000 for number in range(8)]
    async with shaped_echo(Shape(jitter_s=0.001), FAST) as proxy:
        assert await asyncio.gather(*(exchange(proxy, text) for text in texts)) == texts


async def test_each_direction_has_its_own_delay() -> None:
    async with shaped_echo(Shape(delay_s=0.05), Shape(delay_s=0.01)) as proxy:
        await exchange(proxy, b"x")
        report = proxy.report()
    assert report.up.delay_p50_s >= 0.05
    assert report.down.delay_p50_s >= 0.01
    assert report.up.delay_p50_s - report.up.late_p50_s == pytest.approx(0.05)
    assert report.down.delay_p50_s - report.down.late_p50_s == pytest.approx(0.01)
    assert "emulated" in str(report)


async def test_a_sender_waits_when_the_way_is_full() -> None:
    async with shaped_echo(Shape(delay_s=1000.0), FAST) as proxy:
        _, writer = await asyncio.open_connection(proxy.host, proxy.port)
        writer.write(bytes(64 << 20))
        drained = asyncio.create_task(writer.drain())
        await asyncio.wait([drained], timeout=0.3)
        assert not drained.done()
        proxy.cut()
        with pytest.raises(ConnectionError):
            await drained
        await hang_up(writer)


async def test_a_cut_breaks_all_connections_and_new_ones_work() -> None:
    async with shaped_echo(FAST, FAST) as proxy:
        pairs = [await asyncio.open_connection(proxy.host, proxy.port) for _ in range(3)]
        for reader, writer in pairs:
            writer.write(b"x")
            assert await reader.read(1) == b"x"
        proxy.cut()
        for reader, writer in pairs:
            with pytest.raises(ConnectionError):
                await reader.read(1)
            await hang_up(writer)
        assert await exchange(proxy, b"again") == b"again"


async def test_refusing_cuts_whoever_connects_until_it_resumes() -> None:
    async with shaped_echo(FAST, FAST) as proxy:
        proxy.refuse()
        with pytest.raises(ConnectionError):
            assert await exchange(proxy, b"x") == b"x"
        proxy.resume()
        assert await exchange(proxy, b"x") == b"x"


async def test_a_target_that_is_not_there_breaks_the_connection() -> None:
    nobody_listens_on = 1
    with (
        run_proxy_in_thread(ShapingProxy("127.0.0.1", nobody_listens_on, up=FAST, down=FAST)) as proxy,
        pytest.raises(ConnectionError),
    ):
        assert await exchange(proxy, b"x") == b"x"


def test_a_port_that_is_taken_or_a_host_that_is_unknown_is_a_config_error() -> None:
    with (
        run_proxy_in_thread(ShapingProxy("127.0.0.1", 9, up=FAST, down=FAST)) as proxy,
        pytest.raises(ConfigError, match=str(proxy.port)),
    ):
        ShapingProxy("127.0.0.1", 9, up=FAST, down=FAST, port=proxy.port)
    with pytest.raises(ConfigError, match=r"nowhere\.invalid"):
        ShapingProxy("nowhere.invalid", 9, up=FAST, down=FAST)


async def test_a_proxy_process_shapes_reports_cuts_and_ends() -> None:
    async with echo_server() as port:
        with proxy_process("127.0.0.1", port, up=Shape(delay_s=0.005), down=FAST, seed=1) as proxy:
            reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            report = proxy.report()
            assert report.up.chunks == report.down.chunks == 1
            assert report.round_trip_s >= 0.005
            proxy.cut()
            with pytest.raises(ConnectionError):
                await reader.read(1)
            await hang_up(writer)
    with pytest.raises(LinkError, match="ended"):
        proxy.report()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_a_proxy_process_runs_where_it_is_told_to() -> None:
    core = max(os.sched_getaffinity(0))
    with proxy_process("127.0.0.1", 9, up=FAST, down=FAST, core=core) as proxy:
        assert os.sched_getaffinity(proxy.pid) == {core}


def test_a_proxy_process_that_cannot_start_says_why() -> None:
    running = proxy_process("nowhere.invalid", 1, up=FAST, down=FAST)
    with pytest.raises(ConfigError, match=r"nowhere\.invalid"), running:
        pass


def test_stopping_ends_the_thread() -> None:
    proxy = ShapingProxy("127.0.0.1", 9, up=FAST, down=FAST)
    with run_proxy_in_thread(proxy):
        assert any(thread.name == "shaping proxy" for thread in threading.enumerate())
    assert not any(thread.name == "shaping proxy" for thread in threading.enumerate())
