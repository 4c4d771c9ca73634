"""Shares of a device: who runs next, and for how much of each forward."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.engines.batching import Share, Waiting, choose
from foredraft.engines.shares import SPARE_ROWS, Shares

CHUNK = 128
calls = st.builds(
    Waiting,
    trunk=st.integers(1, 600),
    tree=st.integers(0, 32),
    tip=st.booleans(),
    owner=st.sampled_from(["", "a", "b", "c"]),
).map(lambda call: call if call.tip else call._replace(tree=0))


def rows_of(waiting: list[Waiting], shares: list[Share]) -> Counter[str]:
    rows: Counter[str] = Counter()
    for share in shares:
        call = waiting[share.call]
        rows[call.owner] += share.trunk + (call.tree if share.whole else 0)
    return rows


@given(st.lists(st.lists(calls, min_size=1, max_size=12), min_size=1, max_size=6))
def test_every_forward_has_rows_of_waiting_calls_and_no_more(rounds: list[list[Waiting]]) -> None:
    shares = Shares()
    for waiting in rounds:
        chosen = shares.choose(waiting, CHUNK)
        assert chosen
        assert len({share.call for share in chosen}) == len(chosen)
        for share in chosen:
            call = waiting[share.call]
            assert 0 < share.trunk <= call.trunk
            assert share.whole == (share.trunk == call.trunk)


@given(st.lists(calls.map(lambda call: call._replace(owner="one")), min_size=1, max_size=12))
def test_an_owner_alone_has_the_device_as_if_there_were_no_shares(waiting: list[Waiting]) -> None:
    assert Shares().choose(waiting, CHUNK) == choose(waiting, CHUNK)


def test_nobody_waits_for_ever() -> None:
    """Every call of every owner ends, however wide, beside others that never stop asking."""
    shares, wide = Shares(), Waiting(1, 32, owner="wide")
    for _ in range(60):
        waiting = [Waiting(1, owner="narrow"), wide]
        if any(share.call == 1 and share.whole for share in shares.choose(waiting, CHUNK)):
            return
    pytest.fail("the wide pass never ran")


@pytest.mark.parametrize("weights", [{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 3.0}, {"a": 5.0, "b": 1.0, "c": 2.0}])
def test_those_who_always_want_more_get_rows_by_their_weights(weights: dict[str, float]) -> None:
    shares, luck = Shares(weights.__getitem__), Random(0)
    rows: Counter[str] = Counter()
    for _ in range(600):
        waiting = [
            Waiting(luck.choice((1, 1, 400)), luck.choice((4, 32)), owner=owner) for owner in weights for _ in range(8)
        ]
        luck.shuffle(waiting)
        rows += rows_of(waiting, shares.choose(waiting, CHUNK))
    for owner, weight in weights.items():
        assert rows[owner] / rows.total() == pytest.approx(weight / sum(weights.values()), rel=0.15)


def test_a_flood_adds_few_rows_to_the_passes_of_one_who_asks_for_little() -> None:
    shares = Shares()
    flood = [Waiting(500, tip=False, owner="flood"), *(Waiting(1, 32, owner="flood") for _ in range(20))]
    shares.choose([Waiting(1, owner="quiet"), *flood], CHUNK)
    beside = [
        rows_of(waiting, shares.choose(waiting, CHUNK))["flood"]
        for waiting in [[Waiting(1, owner="quiet"), *flood]] * 100
    ]
    assert sum(rows <= SPARE_ROWS + 1 for rows in beside) >= 85
    assert max(beside) <= CHUNK


def test_a_forward_of_many_keys_is_at_most_two_chunks_and_has_those_who_want_little() -> None:
    shares = Shares()
    floods = [Waiting(500, tip=False, owner=f"flood {number}") for number in range(10)]
    for _ in range(200):
        rows = rows_of(waiting := [*floods, Waiting(1, owner="quiet")], shares.choose(waiting, CHUNK))
        assert rows["quiet"] == 1
        assert rows.total() <= 2 * CHUNK


def test_who_was_away_is_not_owed_for_it() -> None:
    shares = Shares()
    both = [Waiting(1, 4, owner="back"), Waiting(1, 4, owner="there")]
    for _ in range(100):
        shares.choose(both[1:], CHUNK)
    rows: Counter[str] = Counter()
    for _ in range(20):
        rows += rows_of(both, shares.choose(both, CHUNK))
    assert rows["back"] == rows["there"]
    assert len(shares._served) <= 2


def test_a_weight_counts_from_the_moment_that_it_changes() -> None:
    weights = {"a": 1.0, "b": 1.0}
    shares = Shares(weights.__getitem__)
    waiting = [Waiting(400, tip=False, owner=owner) for owner in "ab" for _ in range(2)]
    before = sum((rows_of(waiting, shares.choose(waiting, CHUNK)) for _ in range(50)), Counter())
    weights["b"] = 4.0
    after = sum((rows_of(waiting, shares.choose(waiting, CHUNK)) for _ in range(50)), Counter())
    assert before["b"] / before["a"] == pytest.approx(1.0, rel=0.1)
    assert after["b"] / after["a"] == pytest.approx(4.0, rel=0.2)
