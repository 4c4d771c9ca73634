"""What an exit says of its hints is believed only as far as it comes true, layer by layer."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from foredraft.edge.estimates import Estimates
from foredraft.edge.state import EdgeState
from foredraft.policies.ahead import AheadPolicy
from foredraft.policies.auto import AutoPolicy
from foredraft.policies.hints import PROBE_EVERY, PROBE_TOKENS, worth_asking
from foredraft.protocol.messages import Commit, Hint, Ready, pack
from foredraft.protocol.sampling import StopRules
from foredraft_sim.bench.policies.setting import reference_pair
from policies.stage import play

EARLY, LATE = 8, 16


def connected() -> EdgeState:
    state = EdgeState([1], StopRules(10_000))
    state.connected(Ready(1, "m", "t", 2000, 20_000, 32, (EARLY, LATE), 64, 31, 32, ()))
    return state


def play_round(state: EdgeState, hints: dict[int, tuple[Sequence[int], float]], truth: Sequence[int]) -> None:
    """The exits speak, then the commit comes."""
    for layer, (tokens, confidence) in hints.items():
        state.take_hint(Hint(state.session, state.position, layer, pack(list(tokens)), confidence, 0.01))
    state.committed(Commit(state.session, state.position, pack(list(truth)), 0, 0, 0.0, 0.0, 0.03))


def boasted(rounds: int) -> EdgeState:
    """The early exit is sure and wrong nine times in ten; the late one is sure and right."""
    state = connected()
    for turn in range(rounds):
        early = 5 if turn % 10 == 0 else 6
        play_round(state, {EARLY: ([early], 0.9), LATE: ([5], 0.9)}, [5])
    return state


def test_before_anything_was_seen_an_exit_is_taken_at_its_word() -> None:
    assert Estimates().hint_right(EARLY, 0.7) == 0.7
    state = connected()
    assert worth_asking(state, 0.1) == ((EARLY, LATE), 0.1)


def test_each_layer_is_judged_by_its_own_hints() -> None:
    estimates = boasted(100).estimates
    assert estimates.hint_right(EARLY, 0.95) == pytest.approx(0.2, abs=0.1)
    assert estimates.hint_right(LATE, 0.95) > 0.9


def test_another_confidence_of_the_same_layer_is_another_matter() -> None:
    assert boasted(100).estimates.hint_right(EARLY, 0.35) == 0.35


def test_a_layer_that_becomes_right_is_believed_again() -> None:
    estimates = boasted(100).estimates
    for _ in range(100):
        estimates.saw_hint(EARLY, 0.95, True)
    assert estimates.hint_right(EARLY, 0.95) > 0.85


def test_the_tree_is_reweighed_by_how_often_such_hints_were_right() -> None:
    state = boasted(100)
    sure: dict[int, float] = {}
    for layer in (EARLY, LATE):
        state.take_hint(Hint(state.session, state.position, layer, pack([9]), 0.9, 0.01))
        sure[layer] = {node.token: reach for node, reach in state.path_probabilities if node is not state.root}[9]
    assert sure[EARLY] < 0.35
    assert sure[LATE] > 0.85


def test_of_a_hint_of_several_tokens_what_comes_after_the_first_wrong_one_tells_nothing() -> None:
    state = connected()
    play_round(state, {EARLY: ([5, 6, 7, 8], 0.9**4)}, [5, 9])
    (seen,) = [bin for bin in state.estimates.hints[EARLY] if bin.samples]
    assert (seen.samples, seen.mean) == (2, 0.5)


@pytest.mark.parametrize("policy", [AheadPolicy(threshold=0.4), AutoPolicy(threshold=0.4)], ids=["ahead", "auto"])
def test_a_layer_that_is_right_too_seldom_is_not_asked_but_for_probes(policy: AheadPolicy | AutoPolicy) -> None:
    state = boasted(PROBE_EVERY * 3 + PROBE_TOKENS)
    _make_useful(state)
    assert policy.verify_params(state).exits == (LATE,)
    while (state.position - state.start) % PROBE_EVERY:
        play_round(state, {LATE: ([5], 0.9)}, [5])
    _make_useful(state)
    assert policy.verify_params(state).exits == (EARLY, LATE)


def test_the_threshold_is_the_confidence_from_which_hints_are_right_often_enough() -> None:
    state = connected()
    estimates = state.estimates
    for _ in range(60):
        for layer in (EARLY, LATE):
            estimates.saw_hint(layer, 0.95, True)
            estimates.saw_hint(layer, 0.75, True)
            estimates.saw_hint(layer, 0.55, False)
    while (state.position - state.start) % PROBE_EVERY < PROBE_TOKENS:
        play_round(state, {}, [5])
    assert worth_asking(state, 0.5) == ((EARLY, LATE), 0.6)


def test_the_threshold_is_never_below_what_is_asked_for() -> None:
    for least in (0.0, 0.05, 0.1, 0.33, 0.9, 1.0):
        assert Estimates().hint_floor(EARLY, least) == least


def _make_useful(state: EdgeState) -> None:
    """So many tokens per pass that ``auto`` wants hints at all."""
    for _ in range(30):
        state.estimates.saw_pass(3, 0.03, 0.0, 3)


def test_boasting_exits_are_found_out_in_a_session() -> None:
    honest, boasting = (
        play("auto", pair=replace(reference_pair(), overconfidence=factor), new_tokens=400).session.state.estimates
        for factor in (1.0, 6.0)
    )
    assert honest.hint_right(8, 0.85) > 0.7
    assert boasting.hint_right(8, 0.85) < 0.5
    assert boasting.hint_right(16, 0.95) < 0.85
