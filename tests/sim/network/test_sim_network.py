"""Emulated links meet their profile: rate, queue, delay, jitter, loss, framing, set-up, outages."""

import asyncio
import math
import warnings
from collections.abc import Coroutine
from itertools import pairwise
from statistics import fmean, pstdev
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.errors import LinkClosedError, ProfileError, ProtocolError, UnreachableError
from foredraft.profiles import Direction, Framing, LinkProfile, LinkRange, Loss, Outage, Setup
from foredraft.protocol.messages import Chain, Commit, Grow, Message, encode, pack
from foredraft_sim import DeadlockError, ProfileRangeWarning, SimLink, SimLoop, SimNetwork, Streams, sim_link
from foredraft_sim.network.channel import Channel, LossProcess, jitter_s, merged

T = TypeVar("T")
FREE = Direction(delay_s=0.0)


def profile(up: Direction = FREE, down: Direction = FREE, **more: Any) -> LinkProfile:
    more.setdefault("range", LinkRange(message_bytes=(0, 1 << 20)))
    return LinkProfile(kind="link", name="test", title="Test", up=up, down=down, **more)


def run(main: Coroutine[Any, Any, T], **options: Any) -> T:
    with asyncio.Runner(loop_factory=lambda: SimLoop(**options)) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


def grow(number: int, payload_bytes: int = 0) -> Grow:
    """A message that is told apart by its position; ``payload_bytes`` long in all if given."""
    message = Grow(1, (Chain(number, 7, b""),))
    if not payload_bytes:
        return message
    for size in range(payload_bytes):
        message = Grow(1, (Chain(number, 7, bytes(size)),))
        if len(encode(message)) >= payload_bytes:
            break
    assert len(encode(message)) == payload_bytes
    return message


async def arrivals(link: SimLink, count: int) -> list[float]:
    times = []
    for number in range(count):
        message = await link.receive()
        assert isinstance(message, Grow)
        assert message.chains[0].position == number  # in order
        times.append(now())
    return times


async def send_all(link: SimLink, messages: list[Message]) -> list[float]:
    """When each send was through."""
    times = []
    for message in messages:
        await link.send(message)
        times.append(now())
    return times


def exchange(link_profile: LinkProfile, messages: list[Message], seed: int = 1, **options: Any) -> list[float]:
    """When each message, all sent at time 0 from the edge, arrives at the cloud."""

    async def main() -> list[float]:
        edge, cloud = sim_link(link_profile, Streams(seed))
        async with asyncio.TaskGroup() as group:
            group.create_task(send_all(edge, messages))
            received = group.create_task(arrivals(cloud, len(messages)))
        return received.result()

    return run(main(), **options)


def test_a_free_link_delivers_at_once_and_both_ends_count_the_same_bytes() -> None:
    async def main() -> None:
        edge, cloud = sim_link(profile(), Streams(1))
        sent = Commit(1, 5, pack([1, 300]), 2, 1, 0.0, 0.0, 0.1)
        await cloud.send(sent)
        received = await edge.receive()
        assert received == sent
        assert received is not sent
        await edge.send(grow(1))
        await cloud.receive()
        assert now() == 0.0
        assert edge.bytes_sent == cloud.bytes_received == len(encode(grow(1))) + 2 + 4  # clients mask
        assert cloud.bytes_sent == edge.bytes_received == len(encode(sent)) + 2
        assert edge.wire_bytes_sent == len(encode(grow(1)))

    run(main())


def test_each_direction_has_its_own_delay() -> None:
    async def main() -> tuple[float, float]:
        edge, cloud = sim_link(profile(Direction(delay_s=0.02), Direction(delay_s=0.03)), Streams(1))
        await edge.send(grow(0))
        await cloud.receive()
        there = now()
        await cloud.send(grow(0))
        await edge.receive()
        return there, now()

    assert run(main()) == (0.02, 0.05)


def test_a_rate_limited_link_meets_bytes_by_rate() -> None:
    times = exchange(profile(Direction(delay_s=0.01, rate_bps=80_000.0)), [grow(n, 1000) for n in range(100)])
    assert times == pytest.approx([0.01 + 0.1 * (n + 1) for n in range(100)], abs=2e-9)


def test_framing_adds_bytes_per_message_and_per_segment() -> None:
    framing = Framing(message_bytes=28, segment_bytes=52, mss_bytes=1448)
    link_profile = profile(Direction(delay_s=0.0, rate_bps=8_000.0), framing=framing)
    small, large = 100 + 28 + 52, 3000 + 28 + 3 * 52
    assert exchange(link_profile, [grow(0, 100), grow(1, 3000)]) == pytest.approx(
        [small / 1000, (small + large) / 1000], abs=2e-9
    )


@pytest.mark.parametrize("shuffle_seed", [None, 1, 2, 3])
def test_messages_that_arrive_at_one_instant_stay_in_order_even_with_ties_shuffled(shuffle_seed: int) -> None:
    messages: list[Message] = [grow(n) for n in range(50)]
    assert exchange(profile(Direction(delay_s=1.0)), messages, shuffle_seed=shuffle_seed) == [1.0] * 50


def test_a_full_queue_makes_the_sender_wait_until_its_message_fits() -> None:
    async def main() -> tuple[list[float], list[float]]:
        direction = Direction(delay_s=1.0, rate_bps=8_000.0, queue_bytes=250)
        edge, cloud = sim_link(profile(direction), Streams(1))
        async with asyncio.TaskGroup() as group:
            sent = group.create_task(send_all(edge, [grow(n, 100) for n in range(5)]))
            received = group.create_task(arrivals(cloud, 5))
        return sent.result(), received.result()

    sent, received = run(main())
    assert sent == pytest.approx([0.0, 0.0, 0.1, 0.2, 0.3], abs=2e-9)
    assert received == pytest.approx([1.1, 1.2, 1.3, 1.4, 1.5], abs=2e-9)


def test_an_empty_queue_takes_a_message_larger_than_itself() -> None:
    direction = Direction(delay_s=0.0, rate_bps=8_000.0, queue_bytes=50)
    assert exchange(profile(direction), [grow(0, 100), grow(1, 100)]) == pytest.approx([0.1, 0.2], abs=2e-9)


def test_senders_that_wait_for_room_keep_their_order() -> None:
    async def main() -> None:
        edge, cloud = sim_link(profile(Direction(delay_s=0.0, rate_bps=8_000.0, queue_bytes=100)), Streams(1))
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(edge.send(grow(number, 40)))
            group.create_task(arrivals(cloud, 20))

    for seed in range(5):
        run(main(), shuffle_seed=seed)


@pytest.mark.parametrize("shape", ["uniform", "exponential", "lognormal"])
def test_jitter_has_its_mean_its_spread_and_is_never_negative(shape: Any) -> None:
    direction = Direction(delay_s=0.0, jitter_s=0.01, jitter_shape=shape)
    draw = Streams(3).stream("jitter")
    drawn = [jitter_s(direction, draw) for _ in range(20_000)]
    spread = {"uniform": 0.01 / math.sqrt(3), "exponential": 0.01, "lognormal": 0.01}[shape]
    assert min(drawn) >= 0.0
    assert fmean(drawn) == pytest.approx(0.01, rel=0.03)
    assert pstdev(drawn) == pytest.approx(spread, rel=0.08)


def test_jitter_never_reorders_and_the_seed_decides_it() -> None:
    def arrivals_s(seed: int) -> list[float]:
        channel = Channel(Direction(delay_s=0.01, jitter_s=0.05), Streams(seed))
        return [channel.send(number / 100, 20) for number in range(200)]

    times = arrivals_s(1)
    assert times == sorted(times)
    assert len(set(times)) > 3
    assert times == arrivals_s(1)
    assert times != arrivals_s(2)


def test_messages_that_leave_at_one_instant_share_their_jitter() -> None:
    times = exchange(profile(Direction(delay_s=0.01, jitter_s=0.05)), [grow(n) for n in range(20)])
    assert len(set(times)) == 1
    assert times[0] > 0.01


ALWAYS_BAD = Loss(good_s=1e-9, bad_s=1e9, bad_loss=0.5, rto_s=0.2, rto_max_s=0.6)


def test_loss_adds_timeouts_that_double_up_to_their_most() -> None:
    process = LossProcess(ALWAYS_BAD, Streams(1))
    tenths = {round(process.penalty_s(n * 0.001, 0.0) * 10) for n in range(2_000)}
    assert {0, 2, 6, 12, 18} <= tenths
    assert all(penalty in (0, 2) or penalty % 6 == 0 for penalty in tenths)


def test_a_lost_message_holds_up_what_is_behind_it() -> None:
    async def main() -> list[float]:
        link_profile = profile(Direction(delay_s=0.01), loss=ALWAYS_BAD)
        edge, cloud = sim_link(link_profile, Streams(4))
        async with asyncio.TaskGroup() as group:
            received = group.create_task(arrivals(cloud, 40))
            for number in range(40):
                await edge.send(grow(number))
                await asyncio.sleep(0.02)
        return received.result()

    times = run(main())
    assert times == sorted(times)
    assert any(left == right for left, right in pairwise(times))  # held up together


def test_loss_states_follow_time_in_their_shares_and_not_the_number_of_messages() -> None:
    loss = Loss(good_s=0.9, bad_s=0.1, bad_loss=1.0, rto_s=0.2, rto_max_s=1.0)
    often, seldom = LossProcess(loss, Streams(5)), LossProcess(loss, Streams(5))
    times = [n * 0.01 for n in range(100_000)]
    states = {}
    for time in times:
        states[time] = often.is_bad(time)
        often.penalty_s(time, time)
    assert [seldom.is_bad(time) for time in times[::977]] == [states[time] for time in times[::977]]
    assert fmean(states.values()) == pytest.approx(0.1, rel=0.25)


def test_losses_of_one_direction_do_not_depend_on_the_traffic_of_the_other() -> None:
    link_profile = profile(
        Direction(delay_s=0.01, jitter_s=0.005), Direction(delay_s=0.01, jitter_s=0.005), loss=ALWAYS_BAD
    )

    async def main(*, busy: bool) -> list[float]:
        edge, cloud = sim_link(link_profile, Streams(6))
        async with asyncio.TaskGroup() as group:
            received = group.create_task(arrivals(cloud, 20))
            for number in range(20):
                await edge.send(grow(number))
                if busy:
                    await cloud.send(grow(number))
                await asyncio.sleep(0.5)
        return received.result()

    assert run(main(busy=False)) == run(main(busy=True))


@pytest.mark.parametrize(
    "loss",
    [
        Loss(good_s=1, bad_s=1, bad_loss=0.5, rto_s=0.0, rto_max_s=1.0),
        Loss(good_s=1, bad_s=1, good_loss=1.0, bad_loss=1.0, rto_s=0.2, rto_max_s=1.0),
    ],
)
def test_a_loss_that_could_never_end_is_refused(loss: Loss) -> None:
    with pytest.raises(ProfileError, match="loss"):
        LossProcess(loss, Streams(1))


def test_connecting_costs_round_trips_and_hands_the_cloud_its_end() -> None:
    async def main() -> None:
        accepted: list[SimLink] = []
        link_profile = profile(Direction(delay_s=0.02), Direction(delay_s=0.03), setup=Setup(round_trips=3))
        network = SimNetwork(link_profile, Streams(1), accepted.append)
        edge = await network.connect()
        assert now() == pytest.approx(0.15)
        await edge.send(grow(9))
        assert await accepted[0].receive() == grow(9)

    run(main())


def test_nothing_moves_in_an_outage_and_the_queue_goes_on_afterwards() -> None:
    link_profile = profile(Direction(delay_s=0.1, rate_bps=8_000.0), outages=(Outage(start_s=0.25, duration_s=1.0),))
    times = exchange(link_profile, [grow(n, 100) for n in range(4)])
    # 0.2 s: before the outage. 0.3 s would be in it. 50 bytes of the third left before it.
    assert times == pytest.approx([0.2, 1.25, 1.4, 1.5], abs=2e-9)


def test_outages_that_touch_are_one_and_order_does_not_matter() -> None:
    outages = [
        Outage(start_s=5, duration_s=1),
        Outage(start_s=1, duration_s=2),
        Outage(start_s=2, duration_s=0.5),
        Outage(start_s=6, duration_s=2),
    ]
    assert merged(outages) == (Outage(start_s=1, duration_s=2), Outage(start_s=5, duration_s=3))


def test_an_outage_that_cuts_breaks_both_ends_loses_what_flies_and_refuses_connections_meanwhile() -> None:
    async def main() -> None:
        accepted: list[SimLink] = []
        link_profile = profile(Direction(delay_s=0.5), outages=(Outage(start_s=1.0, duration_s=2.0, cuts=True),))
        network = SimNetwork(link_profile, Streams(1), accepted.append)
        edge = await network.connect()
        await asyncio.sleep(0.9)
        await edge.send(grow(1))
        for receive in (edge.receive(), accepted[0].receive()):
            with pytest.raises(LinkClosedError):
                await receive
            assert now() == 1.0
        with pytest.raises(LinkClosedError):
            await edge.send(grow(2))
        with pytest.raises(UnreachableError, match="another 2 s"):
            await network.connect()
        await asyncio.sleep(2.0)
        edge = await network.connect()
        await edge.send(grow(3))
        assert await accepted[1].receive() == grow(3)
        assert now() == 3.5

    run(main())


def test_closing_lets_what_was_sent_arrive_and_the_other_end_learns_of_it_after_the_delay() -> None:
    async def main() -> None:
        edge, cloud = sim_link(profile(Direction(delay_s=0.5), Direction(delay_s=0.5)), Streams(1))
        pending = asyncio.create_task(edge.receive())
        await asyncio.sleep(1)
        await edge.send(grow(1))
        await edge.close()
        await edge.close()
        with pytest.raises(LinkClosedError):
            await pending
        with pytest.raises(LinkClosedError):
            await edge.send(grow(2))
        await cloud.send(grow(3))  # it does not know yet
        assert await cloud.receive() == grow(1)
        assert now() == 1.5
        with pytest.raises(LinkClosedError):
            await cloud.receive()
        with pytest.raises(LinkClosedError):
            await cloud.send(grow(4))
        await cloud.close()

    run(main())


def test_a_sender_that_waits_for_room_learns_of_a_cut_at_once() -> None:
    async def main() -> None:
        edge, _ = sim_link(profile(Direction(delay_s=0.0, rate_bps=1_000.0, queue_bytes=100)), Streams(1))
        await edge.send(grow(0, 100))
        waiting = asyncio.create_task(edge.send(grow(1, 100)))
        await asyncio.sleep(0.1)
        edge.cut()
        with pytest.raises(LinkClosedError):
            await waiting
        assert now() == 0.1

    run(main())


def test_a_cut_link_leaves_no_timer_that_would_move_time() -> None:
    async def main() -> None:
        edge, _ = sim_link(profile(Direction(delay_s=9.0)), Streams(1))
        for number in range(3):
            await edge.send(grow(number))
        edge.cut()
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError, match=r"at 0\.0+ s"):
        run(main())


def test_garbage_and_giant_messages_are_protocol_errors() -> None:
    async def main() -> None:
        edge, cloud = sim_link(profile(), Streams(1))
        await edge.send_raw(b"\xff\xff")
        with pytest.raises(ProtocolError):
            await cloud.receive()
        with pytest.raises(ProtocolError):
            await edge.send_raw(bytes((1 << 20) + 1))

    run(main())


def test_a_message_outside_of_the_profile_s_range_warns_once() -> None:
    async def main() -> None:
        edge, _ = sim_link(profile(range=LinkRange(message_bytes=(1, 50))), Streams(1))
        with pytest.warns(ProfileRangeWarning, match="1 to 50 bytes"):
            await edge.send(grow(0, 100))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await edge.send(grow(1, 100))

    run(main())


@given(
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 3000)), min_size=1, max_size=30),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 2)), max_size=4),
    st.sampled_from([None, 500, 4000]),
    st.integers(0, 5),
)
def test_arrivals_are_causal_in_order_and_never_faster_than_the_rate(
    sends: list[tuple[float, int]], outages: list[tuple[float, float]], queue_bytes: int | None, seed: int
) -> None:
    direction = Direction(delay_s=0.02, jitter_s=0.01, rate_bps=100_000.0, queue_bytes=queue_bytes)
    stops = merged([Outage(start_s=start, duration_s=length) for start, length in outages])
    loss = Loss(good_s=0.5, bad_s=0.1, bad_loss=0.5, rto_s=0.2, rto_max_s=3.0)
    channel = Channel(direction, Streams(seed), loss=loss, outages=stops)
    now_s = arrival_s = 0.0
    sent_bytes = 0
    for gap_s, wire_bytes in sends:
        room_s = channel.room_at(now_s + gap_s, wire_bytes)
        assert room_s >= now_s + gap_s
        assert channel.room_at(room_s, wire_bytes) == room_s
        now_s, previous_s = room_s, arrival_s
        arrival_s = channel.send(now_s, wire_bytes)
        sent_bytes += wire_bytes
        assert arrival_s >= previous_s
        assert arrival_s >= now_s + wire_bytes * 8 / 100_000.0 + 0.02 - 1e-9
        assert arrival_s >= sent_bytes * 8 / 100_000.0 + 0.02 - 1e-9
        assert not any(stop.start_s <= arrival_s < stop.start_s + stop.duration_s for stop in stops)


async def test_a_link_works_on_an_ordinary_event_loop_too() -> None:
    edge, cloud = sim_link(profile(Direction(delay_s=0.005, rate_bps=1e6, queue_bytes=100)), Streams(1))
    started_s = now()
    async with asyncio.TaskGroup() as group:
        group.create_task(send_all(edge, [grow(n, 90) for n in range(5)]))
        received = group.create_task(arrivals(cloud, 5))
    assert received.result()[-1] - started_s >= 0.005
    await edge.close()
    with pytest.raises(LinkClosedError):
        await cloud.receive()


def test_a_listener_takes_what_lands_at_once_and_in_no_task() -> None:
    async def main() -> None:
        edge, cloud = sim_link(profile(up=Direction(delay_s=0.5)), Streams(1))
        taken: list[tuple[float, Message]] = []

        def take(message: Message) -> bool:
            assert asyncio.current_task() is None
            taken.append((now(), message))
            return len(taken) < 2

        listening = asyncio.create_task(cloud.listen(take))
        await send_all(edge, [grow(0), grow(1), grow(2)])
        await listening
        assert taken == [(0.5, grow(0)), (0.5, grow(1))]
        assert await cloud.receive() == grow(2)
        assert cloud.bytes_received == edge.bytes_sent

    run(main())


def test_a_listener_first_takes_what_has_landed_before() -> None:
    async def main() -> None:
        edge, cloud = sim_link(profile(), Streams(1))
        await send_all(edge, [grow(0), grow(1)])
        await asyncio.sleep(1.0)
        taken: list[Message] = []

        def take(message: Message) -> bool:
            taken.append(message)
            return len(taken) < 3

        listening = asyncio.create_task(cloud.listen(take))
        await asyncio.sleep(1.0)
        assert taken == [grow(0), grow(1)]
        await edge.send(grow(2))
        await listening
        assert taken[2] == grow(2)

    run(main())


def test_a_listener_hears_no_more_once_it_failed_or_was_cancelled_or_the_link_ended() -> None:
    async def main() -> None:
        edge, cloud = sim_link(profile(), Streams(1))

        def fail(message: Message) -> bool:
            raise ProtocolError("nonsense")

        failing = asyncio.create_task(cloud.listen(fail))
        await asyncio.sleep(0.0)
        await send_all(edge, [grow(0), grow(1)])
        with pytest.raises(ProtocolError, match="nonsense"):
            await failing
        assert await cloud.receive() == grow(1)
        cancelled = asyncio.create_task(cloud.listen(fail))
        await asyncio.sleep(0.0)
        cancelled.cancel()
        await asyncio.sleep(0.0)
        await edge.send(grow(2))
        assert await cloud.receive() == grow(2)
        left = asyncio.create_task(cloud.listen(fail))
        await edge.close()
        with pytest.raises(LinkClosedError):
            await left

    run(main())
