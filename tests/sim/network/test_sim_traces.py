"""Packet-opportunity traces: read strictly, repeated, and met byte by byte."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.errors import LinkClosedError, ProfileError
from foredraft.profiles import Direction, LinkProfile, LinkRange, Outage
from foredraft.protocol.messages import Chain, Grow, Message, encode
from foredraft_sim import SimLink, SimLoop, Streams, Trace, parse_trace, read_trace, sim_link
from foredraft_sim.network.traces import OPPORTUNITY_BYTES, TraceSender
from paths import SHARED

LINK_TRACES = SHARED / "link_traces"

times_ms = st.lists(st.integers(0, 20), min_size=1, max_size=12).map(sorted).filter(lambda times: times[-1] > 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\n3\nfive\n", r"t\.up:3: 'five' is not a time"),
        ("0\n\n3\n", r"t\.up:2: '' is not a time"),
        ("0\n-3\n", r"t\.up:2: '-3'"),
        ("0\n2.5\n", r"t\.up:2: '2\.5'"),
        ("5\n3\n", r"t\.up:2: 3 ms comes after 5 ms"),
        ("0\n0\n", r"t\.up: the trace ends at 0 ms"),
        ("", r"t\.up: the trace ends at 0 ms"),
    ],
)
def test_a_malformed_trace_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        parse_trace(text.splitlines(), "t.up")


def test_a_trace_that_cannot_be_read_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="missing: cannot be read"):
        read_trace(tmp_path / "missing")
    (tmp_path / "digits").write_text("9" * 5_000)
    with pytest.raises(ProfileError, match="digits: not a trace"):
        read_trace(tmp_path / "digits")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileError, match="binary"):
        read_trace(tmp_path / "binary")


def test_a_trace_repeats_after_its_last_time() -> None:
    trace = Trace([2, 2, 5])
    assert [round(trace.time_s(index) * 1000) for index in range(7)] == [2, 2, 5, 7, 7, 10, 12]
    assert trace.period_s == 0.005
    assert trace.rate_bps == 3 * 1500 * 8 / 0.005


@given(times_ms, st.integers(0, 100_000_000))
def test_the_first_opportunity_at_a_time_is_the_first_that_is_not_earlier(times: list[int], time_ns: int) -> None:
    trace = Trace(times)
    index = trace.first_at(time_ns / 1e9)
    assert round(trace.time_s(index) * 1e9) >= time_ns
    assert index == 0 or round(trace.time_s(index - 1) * 1e9) < time_ns


def one_by_one(trace: Trace, sends: list[tuple[float, int]], outages: list[Outage]) -> list[float]:
    """The same as TraceSender by walking over every opportunity."""
    done, index, left = [], 0, OPPORTUNITY_BYTES
    for start_s, wire_bytes in sends:
        while wire_bytes:
            time_s = trace.time_s(index)
            lost = any(o.start_s <= time_s < round(o.start_s + o.duration_s, 6) for o in outages)
            used = 0 if lost or time_s < start_s else min(left, wire_bytes)
            wire_bytes, left = wire_bytes - used, left - used
            if wire_bytes:
                index, left = index + 1, OPPORTUNITY_BYTES
        done.append(trace.time_s(index))
    return done


@given(
    times_ms,
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 7000)), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40)), max_size=2),
)
def test_sending_over_a_trace_is_the_same_as_walking_over_its_opportunities(
    times: list[int], gaps: list[tuple[int, int]], stops: list[tuple[int, int]]
) -> None:
    outages = sorted({start: Outage(start_s=start / 1000, duration_s=length / 1000) for start, length in stops}.items())
    apart = [outage for _, outage in outages]
    if len(apart) == 2 and apart[0].start_s + apart[0].duration_s >= apart[1].start_s:
        apart = apart[:1]
    clock_ms, sends = 0, []
    for gap_ms, wire_bytes in gaps:
        clock_ms += gap_ms
        sends.append((clock_ms / 1000, wire_bytes))
    sender = TraceSender(Trace(times))
    assert [sender.finish_s(start_s, size, apart) for start_s, size in sends] == one_by_one(Trace(times), sends, apart)


def _message(payload_bytes: int) -> Message:
    empty = len(encode(Grow(1, (Chain(0, 7, bytes(1000)),))))
    message = Grow(1, (Chain(0, 7, bytes(1000 + payload_bytes - empty)),))
    assert len(encode(message)) == payload_bytes
    return message


async def _pump(link: SimLink, message: Message) -> None:
    try:
        while True:
            await link.send(message)
    except LinkClosedError:
        return


def bytes_per_interval(folder: Path, name: str, seconds: int, interval_s: float) -> list[int]:
    """Bytes that arrive over a saturated link, by intervals."""

    async def main() -> list[int]:
        direction = Direction(delay_s=0.0, trace=name, queue_bytes=60_000)
        link_profile = LinkProfile(
            kind="link",
            name="traced",
            title="Traced",
            up=direction,
            down=Direction(delay_s=0.0),
            range=LinkRange(message_bytes=(0, 1 << 20)),
            path=folder / "profile.toml",
        )
        edge, cloud = sim_link(link_profile, Streams(1))
        pump = asyncio.create_task(_pump(edge, _message(1500)))
        counts = [0] * round(seconds / interval_s)
        loop = asyncio.get_running_loop()
        while loop.time() < seconds:
            await cloud.receive()
            bin_ = int(loop.time() / interval_s + 1e-9)
            if bin_ < len(counts):
                counts[bin_] += 1500
        await cloud.close()
        await edge.close()
        await pump
        return counts

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(main())


def test_a_saturated_link_carries_exactly_what_its_trace_offers(tmp_path: Path) -> None:
    times = [0, 0, 3, 7, 7, 7, 10]
    (tmp_path / "t.up").write_text("".join(f"{time}\n" for time in times))
    counts = bytes_per_interval(tmp_path, "t.up", 1, 0.01)
    # The 10 at the end of one repetition falls into the next interval.
    assert counts == [6 * 1500] + [7 * 1500] * 99


@pytest.mark.parametrize("name", ["Verizon-LTE-short.up", "ATT-LTE-driving-2016.down"])
def test_a_recorded_trace_is_met_in_every_tenth_of_a_second(name: str) -> None:
    if not (LINK_TRACES / name).is_file():
        pytest.skip(f"no recorded traces at {LINK_TRACES}")
    offered = [0] * 200
    for line in (LINK_TRACES / name).read_text().split():
        if int(line) < 20_000:
            offered[int(line) // 100] += 1500
    assert sum(offered) > 0
    assert bytes_per_interval(LINK_TRACES, name, 20, 0.1) == offered
