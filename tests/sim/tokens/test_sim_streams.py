"""Random streams: independent by name, the same in every process."""

import itertools
from statistics import fmean

from hypothesis import given
from hypothesis import strategies as st

from foredraft_sim import Streams, uniform


@given(st.integers(0, 50))
def test_more_draws_in_one_stream_change_nothing_in_another(draws: int) -> None:
    alone, busy = Streams(7), Streams(7)
    for _ in range(draws):
        busy.stream("uplink").random()
        busy.child("device 3").stream("downlink").random()
    assert [busy.stream("downlink").random() for _ in range(5)] == [alone.stream("downlink").random() for _ in range(5)]


def test_a_stream_goes_on_where_it_stopped() -> None:
    streams, whole = Streams(7), Streams(7).stream("a")
    assert [streams.stream("a").random() for _ in range(4)] == [whole.random() for _ in range(4)]


def test_seed_name_and_child_each_make_another_stream() -> None:
    first = {
        Streams(1).stream("a").random(),
        Streams(2).stream("a").random(),
        Streams(1).stream("b").random(),
        Streams(1).child("a").stream("").random(),
        Streams(1).child("a").stream("a").random(),
        Streams(1).child("aa").stream("").random(),
    }
    assert len(first) == 6


def test_values_are_the_same_in_every_process_and_version() -> None:
    # Golden: written down once. A change here changes every simulated result.
    assert uniform(1, "tokens", 3, 17) == 0.6546008451430024
    assert Streams(1).stream("uplink").random() == 0.7550929955840736
    assert Streams(1).child("edge").uniform("tokens", 0) == 0.8922333310949722


def test_indexed_values_are_spread_evenly_and_do_not_depend_on_order() -> None:
    values = [uniform(1, "tokens", request, position) for request in range(100) for position in range(100)]
    assert all(0.0 <= value < 1.0 for value in values)
    assert len(set(values)) == len(values)
    assert abs(fmean(values) - 0.5) < 0.01
    assert uniform(1, "tokens", 5, 9) == values[509]
    assert uniform(1, "tokens", 5, 9) != uniform(1, "tokens", 9, 5)
    # Neighbours are not alike: the correlation of x[n] and x[n + 1] is small.
    assert abs(fmean((a - 0.5) * (b - 0.5) for a, b in itertools.pairwise(values)) * 12) < 0.03
