"""Who has shown no key: counted by address, let in at a rate, and the first to go where a customer needs the place."""

import pytest

from foredraft.server.strangers import FAST, MANY, Strangers, address_of


def test_so_many_of_one_address_and_others_beside_them() -> None:
    strangers = Strangers[int](2, 0.0)
    strangers.add(1, "a")
    strangers.add(2, "a")
    assert (strangers.refuses("a", 0.0), strangers.refuses("b", 0.0)) == (MANY, "")
    strangers.remove(1, "a")
    assert strangers.refuses("a", 0.0) == ""


def test_a_seconds_worth_at_once_and_then_as_time_goes_by() -> None:
    strangers = Strangers[int](0, 4.0)
    assert [strangers.refuses("a", 10.0) for _ in range(6)] == ["", "", "", "", FAST, FAST]
    assert strangers.refuses("b", 10.0) == ""
    assert [strangers.refuses("a", 10.5) for _ in range(3)] == ["", "", FAST]
    assert [strangers.refuses("a", 99.0) for _ in range(5)] == ["", "", "", "", FAST]


def test_less_than_one_a_second_is_one_and_then_a_pause() -> None:
    strangers = Strangers[int](0, 0.1)
    assert [strangers.refuses("a", at_s) for at_s in (0.0, 1.0, 9.0, 11.0, 12.0)] == ["", FAST, FAST, "", FAST]


def test_nothing_is_kept_of_addresses_that_have_been_away() -> None:
    strangers = Strangers[int](0, 2.0)
    for number in range(1000):
        strangers.refuses(f"address {number}", float(number))
        strangers.add(number, f"address {number}")
        strangers.remove(number, f"address {number}")
    assert len(strangers._left) <= 3
    assert strangers._of == {}


def test_the_oldest_of_the_address_that_has_most_makes_room() -> None:
    strangers = Strangers[str](0, 0.0)
    assert strangers.first_to_go("a") is None
    for name in ("a1", "b1", "b2", "c1"):
        strangers.add(name, name[0])
    assert strangers.first_to_go("d") == "b1"
    strangers.remove("b1", "b")
    assert strangers.first_to_go("d") == "a1"  # of the same number, who came first
    assert strangers.first_to_go("c") == "c1"  # with the newcomer its address has most


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("192.0.2.7", 5), "192.0.2.7"),
        (("::ffff:192.0.2.7", 5, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        (None, ""),
    ],
)
def test_an_address_is_what_one_peer_has(peer: object, address: str) -> None:
    assert address_of(peer) == address
