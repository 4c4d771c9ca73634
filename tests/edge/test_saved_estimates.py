"""Estimates that outlive a session: from a file and from profiles, and files that are none."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.edge.estimates import Estimates
from foredraft.edge.saved_estimates import estimates_from_profiles, load_estimates, save_estimates
from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.errors import ConfigError, EstimatesError
from foredraft.policies.auto import AutoPolicy, Choice, choose
from foredraft.profiles import load_profile
from foredraft.protocol.averages import STALE_PASSES
from foredraft.protocol.tree import Node
from foredraft_sim.bench.policies.setting import Times, reference_pair
from policies.stage import ROBOT, play

NEAR = Times(pass_s=0.03, flat_tokens=8, step_s=0.003, round_trip_s=0.009)


class Watched:
    """``auto``, with its first orders remembered."""

    name = "watched"

    def __init__(self) -> None:
        self.inner = AutoPolicy()
        self.first: VerifyParams | None = None

    def verify_params(self, state: EdgeState) -> VerifyParams:
        verify_params = self.inner.verify_params(state)
        self.first = self.first or verify_params
        return verify_params

    def step(self, state: EdgeState) -> Step | None:
        return self.inner.step(state)

    def ship(self, state: EdgeState) -> Sequence[Node]:
        return self.inner.ship(state)


def first_orders(place: Times, estimates: Estimates | None) -> VerifyParams:
    policy = Watched()
    play(policy, place, new_tokens=8, estimates=estimates)
    assert policy.first is not None
    return policy.first


def choice_of(estimates: Estimates) -> Choice:
    return choose(estimates.snapshot(), 31, 0.0)


def learned_at(place: Times) -> Estimates:
    return play("auto", place, new_tokens=256, seed=3).session.state.estimates


def test_what_was_learned_comes_back_from_the_file(tmp_path: Path) -> None:
    before = learned_at(ROBOT)
    save_estimates(before, tmp_path / "robot.json")
    after = load_estimates(tmp_path / "robot.json")
    assert after.snapshot() == before.snapshot()
    assert [after.calibrated(said / 20) for said in range(20)] == [before.calibrated(said / 20) for said in range(20)]
    assert after.hint_right(16, 0.85) == before.hint_right(16, 0.85) != 0.85
    assert list(tmp_path.iterdir()) == [tmp_path / "robot.json"]


@pytest.mark.parametrize("place", [ROBOT, NEAR], ids=["robot", "near"])
def test_a_session_with_a_file_begins_as_the_one_before_would_go_on(place: Times, tmp_path: Path) -> None:
    save_estimates(learned_at(place), tmp_path / "learned.json")
    unknowing = first_orders(place, None)
    knowing = first_orders(place, load_estimates(tmp_path / "learned.json"))
    assert (unknowing.patience_s, unknowing.max_nodes) == (0.0, 3)
    choice = choice_of(load_estimates(tmp_path / "learned.json"))
    assert (knowing.patience_s, knowing.min_nodes) == (choice.patience_s, choice.least)
    assert knowing.max_nodes == choice.nodes >= 7


def test_a_session_with_profiles_and_ranks_begins_with_the_choice_that_others_come_to() -> None:
    estimates = estimates_from_profiles(ROBOT.draft(), ROBOT.target(), ROBOT.link(), reference_pair().ranks)
    knowing = first_orders(ROBOT, estimates)
    later = choice_of(learned_at(ROBOT))
    assert knowing.max_nodes == 31 == later.nodes
    assert knowing.patience_s == pytest.approx(later.patience_s, rel=0.5)
    assert knowing.exits


def test_profiles_alone_tell_times_and_the_acceptance_is_still_seen_first() -> None:
    estimates = estimates_from_profiles(ROBOT.draft(), ROBOT.target(), ROBOT.link())
    seen = estimates.snapshot()
    assert (seen.draft_step_s, seen.round_trip_s, seen.pass_s(0), seen.pass_s(31)) == (0.072, 0.12, 0.62, 0.62)
    assert choice_of(estimates).steps == 0


def test_a_shipped_link_brings_its_jitter() -> None:
    seen = estimates_from_profiles(link=load_profile("lte", "link")).snapshot()
    assert seen.round_trip_spread_s > 0.0


def test_a_short_answer_takes_less_time_with_what_was_learned_before(tmp_path: Path) -> None:
    save_estimates(learned_at(NEAR), tmp_path / "learned.json")
    fresh_s = knowing_s = 0.0
    for seed in (1, 2, 3):
        fresh_s += play("auto", NEAR, new_tokens=24, seed=seed).report.e2e_s
        learned = load_estimates(tmp_path / "learned.json")
        knowing_s += play("auto", NEAR, new_tokens=24, seed=seed, estimates=learned).report.e2e_s
    assert knowing_s < fresh_s


def test_what_was_learned_elsewhere_does_no_harm(tmp_path: Path) -> None:
    """Learned where waiting pays; used where the link is far and the draft useless."""
    save_estimates(learned_at(NEAR), tmp_path / "learned.json")
    far = Times(pass_s=0.03, flat_tokens=8, step_s=0.03, round_trip_s=0.3)
    misled, cloud = (
        play(policy, far, acceptance=0.3, new_tokens=128, estimates=load_estimates(tmp_path / "learned.json")).report
        for policy in ("auto", "cloud")
    )
    assert misled.e2e_s <= 1.02 * cloud.e2e_s


def test_a_width_not_seen_for_long_is_not_kept(tmp_path: Path) -> None:
    estimates = Estimates()
    for _ in range(3):
        estimates.saw_pass(15, 9.0, 0.0, 4)
    for _ in range(STALE_PASSES + 1):
        estimates.saw_pass(0, 1.0, 0.0, 1)
    save_estimates(estimates, tmp_path / "learned.json")
    assert json.loads((tmp_path / "learned.json").read_text())["passes_s"][4] == []


def written(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    file = tmp_path / "learned.json"
    save_estimates(learned_at(NEAR), file)
    return file, json.loads(file.read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2, where this Foredraft knows 1; remove the file"),
        ({"round_trip": 1.0}, "unknown key round_trip: did you mean 'round_trip_s'?"),
        ({"tokens": {"mean": -1.0, "variance": 0.0, "samples": 3}}, "tokens.mean = -1.0"),
        ({"draft_step_s": 0.1}, "draft_step_s = 0.1"),
        ({"passes_s": [[0.1]]}, "passes_s"),
        ({"ranks": [{"mean": 1.5, "samples": 3}]}, "ranks[0].mean = 1.5"),
        ({"hints": [{"layer": 8, "right": []}]}, "hints[0].right"),
        ({"right": []}, "right"),
    ],
)
def test_a_file_that_is_wrong_says_where_and_how(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    file, plain = written(tmp_path)
    file.write_text(json.dumps(plain | change))
    with pytest.raises(EstimatesError) as caught:
        load_estimates(file)
    assert str(file) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{}", "[" * 100_000, "\x00\xff"])
def test_a_file_that_is_none_is_refused_by_name(text: str, tmp_path: Path) -> None:
    file = tmp_path / "learned.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(EstimatesError, match=r"learned\.json"):
        load_estimates(file)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.json"
    file.write_bytes(data)
    with pytest.raises(EstimatesError):
        load_estimates(file)


def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write"):
        save_estimates(Estimates(), tmp_path / "nowhere" / "learned.json")
    with pytest.raises(EstimatesError, match="cannot be read"):
        load_estimates(tmp_path / "nowhere.json")


@pytest.mark.parametrize("ranks", [(0.9, 0.2), (-0.1,), (1.5,)])
def test_ranks_that_are_no_probabilities_are_refused(ranks: tuple[float, ...]) -> None:
    with pytest.raises(EstimatesError, match="ranks must be"):
        estimates_from_profiles(ranks=ranks)
