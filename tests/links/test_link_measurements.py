"""The measurements measure: every round trip that was asked for, over real sockets."""

from foredraft.bench.link_costs import bare_echo_round_trips, link_round_trips, measure_precision
from foredraft.protocol.messages import Close


async def test_each_round_trip_is_timed() -> None:
    bare_s = await bare_echo_round_trips(20, 40, count=5)
    link_s = await link_round_trips(Close(1), Close(2), count=5)
    assert len(bare_s) == len(link_s) == 5
    assert all(trip_s > 0 for trip_s in bare_s + link_s)


def test_precision_is_measured_on_the_delay_that_was_asked_for() -> None:
    precision = measure_precision(0.01, count=5)
    assert precision.report.up.chunks == precision.report.down.chunks == 5
    assert precision.report.round_trip_s >= 0.01
