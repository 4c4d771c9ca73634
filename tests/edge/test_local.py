"""``local``: the edge goes on without the cloud, says so, and says afterwards where the cloud differed."""

from itertools import pairwise

import pytest

from foredraft.edge.local import Confirmed, LocalEvent, LocalText, Unverified, Withdrawn
from foredraft.profiles import Outage
from policies.stage import ROBOT, Played, play

OUT = (Outage(start_s=3.0, duration_s=5.0, cuts=True),)


def through_an_outage(policy: str, acceptance: float) -> tuple[Played, list[LocalEvent]]:
    told: list[LocalEvent] = []
    played = play(policy, ROBOT, acceptance=acceptance, outages=OUT, local=LocalText(told.append))
    assert played.report.reconnects >= 1
    return played, told


@pytest.mark.parametrize("policy", ["cloud", "sync", "auto"])
def test_the_edge_goes_on_with_its_own_draft_while_the_cloud_is_out_of_reach(policy: str) -> None:
    played, told = through_an_outage(policy, 0.58)
    shown = [one for one in told if isinstance(one, Unverified)]
    assert sum(len(one.tokens) for one in shown) >= 10
    for before, after in pairwise(shown):
        assert after.position == before.position + len(before.tokens)
    assert len(played.report.tokens) == 64  # and they are the target's, which play() checks


@pytest.mark.parametrize("policy", ["cloud", "sync", "auto"])
@pytest.mark.parametrize("acceptance", [0.3, 0.9, 1.0])
def test_every_shown_token_is_confirmed_or_withdrawn_when_the_cloud_is_back(policy: str, acceptance: float) -> None:
    played, told = through_an_outage(policy, acceptance)
    text = [1, *played.report.tokens]
    first = next(one.position for one in told if isinstance(one, Unverified))
    shown = [token for one in told if isinstance(one, Unverified) for token in one.tokens]
    confirmed = max((one.position for one in told if isinstance(one, Confirmed)), default=first)
    withdrawn = [one for one in told if isinstance(one, Withdrawn)]
    assert shown[: confirmed - first] == text[first:confirmed]
    if acceptance == 1.0:
        assert not withdrawn
    for one in withdrawn:
        assert one.position == confirmed
        assert list(one.tokens) == shown[confirmed - first :]
        assert one.tokens[0] != text[one.position]
    assert confirmed - first + sum(len(one.tokens) for one in withdrawn) == len(shown)


def test_without_an_outage_nothing_is_shown_unverified() -> None:
    told: list[LocalEvent] = []
    play("auto", ROBOT, new_tokens=24, local=LocalText(told.append))
    assert told == []
