"""The explanation: closed forms by hand, and words that follow from the figures."""

from dataclasses import replace

import pytest

from foredraft.edge.estimates import Snapshot
from foredraft.edge.path_probability import expected_tokens
from foredraft.observe.bound import bound_s, knowing_bound_s
from foredraft.observe.explain import explain, outlook
from foredraft.protocol.averages import WIDTHS
from policies.stage import ROBOT, play

FLAT = Snapshot(0.12, 0.0, 0.072, 0.3, 2.0, 8.0, (0.62,) * len(WIDTHS), (0.58, 0.12, 0.06, 0.04, 0.03), 99)


def test_the_closed_forms_at_the_robot_point() -> None:
    found = outlook(FLAT, 31)
    a = 0.58
    by_hand = {gamma: (gamma * 0.072 + 0.12 + 0.62) / ((1 - a ** (gamma + 1)) / (1 - a)) for gamma in range(1, 10)}
    assert found.cloud_s == 0.62
    assert found.sync_s == pytest.approx(min(by_hand.values()))
    assert found.gamma == min(by_hand, key=lambda gamma: by_hand[gamma])
    assert found.break_even_s == pytest.approx(
        max((a - a ** (g + 1)) / (1 - a) * 0.62 - g * 0.072 for g in range(1, 10))
    )
    hidden = {gamma: whole - gamma * 0.072 * (1 - a) / (1 - a ** (gamma + 1)) for gamma, whole in by_hand.items()}
    assert found.seed_s <= min(hidden.values()) + 1e-12
    assert found.ahead_s == pytest.approx(0.17 * 0.192 + found.bound_s)
    assert found.ahead_s > found.bound_s >= found.knowing_s


def test_what_is_drafted_ahead_of_a_fast_target_arrives_too_late() -> None:
    """Passes of 5.5 ms, draft steps of 3.8 ms, a round trip of 41 ms: auto rightly streams there."""
    fast = Snapshot(0.041, 0.001, 0.0038, 0.0055, 1.0, 4.0, (0.0055,) * len(WIDTHS), (0.58, 0.12, 0.06), 99)
    found = outlook(fast, 31)
    assert found.ahead_s == found.cloud_s
    assert found.sync_s > found.cloud_s
    report = play("auto", ROBOT, new_tokens=32).report
    assert "ahead no less than cloud: its drafts arrive too late" in "\n".join(explain(fast, report, 31))


def test_the_bound_of_flat_passes_is_the_projects_own() -> None:
    """Passes flat to 32 tokens: 0.31 of cloud time with a tree, 0.42 with a chain."""
    assert bound_s(FLAT.ranks, lambda nodes: 1.0, 31) == pytest.approx(0.31, abs=0.005)
    assert bound_s(FLAT.ranks[:1], lambda nodes: 1.0, 31) == pytest.approx(0.42, abs=0.005)
    assert knowing_bound_s(lambda nodes: 1.0, 31) == pytest.approx(1 / 32)


def test_no_draft_is_worth_anything_where_passes_cost_as_much_per_token() -> None:
    assert bound_s((0.9,), lambda nodes: 1.0 + nodes, 31) == pytest.approx(1.0)
    assert expected_tokens((0.9,), 0, 0) == 1.0


def test_a_session_is_explained_with_its_own_figures() -> None:
    played = play("auto", ROBOT, new_tokens=96)
    seen = played.session.state.estimates.snapshot()
    said = "\n".join(explain(seen, played.report, 31))
    assert "round trip 120 ms" in said
    assert "draft step 72 ms" in said
    assert "620 ms for about 1" in said
    assert "this session (auto)" in said
    assert "times the bound" in said
    assert "what would save most" in said
    times = float(said.split("this session took ")[1].split(" times")[0])
    assert 1.0 <= times < 3.0


def test_where_a_round_trip_is_too_long_it_says_so_and_what_would_help() -> None:
    report = play("auto", ROBOT, new_tokens=32).report
    far = replace(FLAT, round_trip_s=9.0, ranks=(0.1,), tokens=1.0)
    said = "\n".join(explain(far, report, 31))
    assert "auto streams from the cloud" in said
    assert "a target twice as fast (50%)" in said


def test_a_hopeless_draft_has_no_break_even() -> None:
    report = play("auto", ROBOT, new_tokens=32).report
    said = "\n".join(explain(replace(FLAT, ranks=(0.02,), tokens=1.0), report, 31))
    assert "does not beat streaming at any round trip" in said


def test_a_session_that_never_drafted_has_nothing_to_explain() -> None:
    played = play("cloud", ROBOT, new_tokens=16)
    assert explain(played.session.state.estimates.snapshot(), played.report, 31)[0].startswith("nothing to explain yet")


def test_passes_that_take_no_time_leave_nothing_to_explain() -> None:
    report = play("auto", ROBOT, new_tokens=16).report
    assert "no time" in explain(replace(FLAT, passes_s=(0.0,) * len(WIDTHS)), report, 31)[0]
