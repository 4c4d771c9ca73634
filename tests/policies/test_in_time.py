"""``auto`` under a deadline: what makes it most probable that the text is complete in time."""

import math
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.edge.estimates import Estimates, Snapshot
from foredraft.edge.path_probability import expected_tokens, token_moments
from foredraft.edge.state import EdgeState
from foredraft.policies.auto import MOST_STEPS, AutoPolicy, _left, choose, choose_in_time, steps_worth_waiting
from foredraft.policies.in_time import SURE, Left, Next, sureness, surest
from foredraft.protocol import messages
from foredraft.protocol.averages import WIDTHS
from foredraft.protocol.sampling import StopRules
from policies.test_auto import SNAPSHOTS, seen

FAR = Left(1000, 1.0)
LEFTS = st.builds(Left, st.integers(1, 200), st.floats(-10.0, 500.0))
SPREADS = st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 3.0))


def spread(snapshot: Snapshot, spreads: tuple[float, float]) -> Snapshot:
    """The same with what round trips, and the times of tokens, vary by."""
    return replace(snapshot, round_trip_spread_s=spreads[0], token_spread_s=spreads[1])


@given(st.floats(0.0, 1.0), st.integers(0, 6))
def test_the_tokens_of_a_chain_vary_as_trials_until_the_first_failure(right: float, depth: int) -> None:
    chances = [right**length * (1.0 - right) for length in range(depth)] + [right**depth]
    mean = 1.0 + sum(length * chance for length, chance in enumerate(chances))
    variance = sum((1.0 + length - mean) ** 2 * chance for length, chance in enumerate(chances))
    assert token_moments((right,), depth, depth) == pytest.approx((mean, variance), abs=1e-9)


def test_the_tokens_of_a_tree_vary_as_its_paths_do() -> None:
    ranks = (0.5, 0.3)
    chances = {0: 0.2, 1: 0.8 * 0.2, 2: 0.8 * 0.8}  # two levels, both guesses at each: right with 0.8
    mean = 1.0 + sum(length * chance for length, chance in chances.items())
    variance = sum((1.0 + length - mean) ** 2 * chance for length, chance in chances.items())
    assert token_moments(ranks, 6, 2) == pytest.approx((mean, variance))
    assert expected_tokens(ranks, 6, 2) == pytest.approx(mean)


@given(SNAPSHOTS, SPREADS, LEFTS, st.floats(0.0, 100.0), st.sampled_from([Next(0, 0), Next(3, 2), Next(7, 8)]))
def test_more_time_never_makes_it_less_sure(
    snapshot: Snapshot, spreads: tuple[float, float], left: Left, more_s: float, option: Next
) -> None:
    snapshot = spread(snapshot, spreads)
    assert sureness(snapshot, option, left._replace(seconds=left.seconds + more_s)) >= sureness(snapshot, option, left)


@given(SNAPSHOTS, SPREADS, LEFTS)
def test_what_is_chosen_is_the_surest_of_all_there_is(
    snapshot: Snapshot, spreads: tuple[float, float], left: Left
) -> None:
    snapshot = spread(snapshot, spreads)
    best = sureness(snapshot, surest(snapshot, WIDTHS, MOST_STEPS, left), left)
    for nodes, steps in product(WIDTHS[1:], range(1, min(MOST_STEPS, left.tokens - 1) + 1)):
        assert best >= sureness(snapshot, Next(nodes, steps), left)
    assert best >= sureness(snapshot, Next(0, 0), left)


@given(SNAPSHOTS)
def test_where_nothing_varies_the_surest_is_the_fastest(snapshot: Snapshot) -> None:
    certain = replace(snapshot, ranks=(1.0,))
    nodes, steps = surest(certain, (0, 7), MOST_STEPS, FAR)
    wanted = steps_worth_waiting(certain, 7, 0.0)
    if nodes:
        assert sureness(certain, Next(7, steps), FAR) == pytest.approx(sureness(certain, Next(7, max(1, wanted)), FAR))
    else:
        assert wanted == 0 or sureness(certain, Next(7, wanted), FAR) <= sureness(certain, Next(0, 0), FAR) + 1e-6


def test_a_round_trip_that_varies_is_not_waited_for_where_the_text_would_just_be_in_time_without() -> None:
    snapshot, left = seen(round_trip_s=0.1, ranks=(0.5,)), Left(6, 7.0)
    assert surest(spread(snapshot, (0.0, 0.3)), WIDTHS, MOST_STEPS, left).steps > 0
    assert surest(spread(snapshot, (1.0, 0.3)), WIDTHS, MOST_STEPS, left) == Next(0, 0)


def test_where_the_mean_comes_too_late_a_chance_is_taken() -> None:
    steady = seen(round_trip_s=0.1, ranks=(0.3, 0.05))
    short, long = Left(4, 2.2), Left(4, 4.6)
    hopeful = surest(steady, WIDTHS, MOST_STEPS, short)
    assert sureness(steady, Next(0, 0), short) < sureness(steady, hopeful, short) < 0.0
    assert hopeful.steps > 0
    assert sureness(steady, Next(0, 0), long) > SURE


def test_for_the_last_token_nothing_is_waited_for() -> None:
    assert surest(seen(round_trip_s=0.01, step_s=0.01), WIDTHS, MOST_STEPS, Left(1, 0.5)) == Next(0, 0)


@given(SNAPSHOTS, SPREADS, LEFTS, st.floats(0.0, 4.0))
def test_a_deadline_that_will_be_kept_changes_nothing(
    snapshot: Snapshot, spreads: tuple[float, float], left: Left, weight: float
) -> None:
    snapshot = spread(snapshot, spreads)
    usual = choose(snapshot, 32, weight)
    chosen = choose_in_time(snapshot, 32, weight, left)
    sure = sureness(snapshot, Next(usual.nodes, usual.steps), left)
    if sure >= SURE:
        assert chosen == usual
    else:
        nodes = chosen.nodes if chosen.steps else 0
        assert sureness(snapshot, Next(nodes, chosen.steps), left) >= sure - 1e-9


@given(SNAPSHOTS, st.floats(0.0, 4.0))
def test_before_enough_was_seen_it_begins_as_ever(snapshot: Snapshot, weight: float) -> None:
    young = replace(snapshot, samples=3)
    assert choose_in_time(young, 32, weight, Left(9, 0.1)) == choose(young, 32, weight)


def test_without_a_deadline_the_choice_is_the_usual_one() -> None:
    state, policy = EdgeState([1, 2], StopRules(50)), AutoPolicy()
    for number in range(12):
        state.estimates.round_trip_s.take(0.1 + 0.05 * (number % 3))
        state.estimates.draft_step_s.take(0.01)
        state.estimates.saw_pass(3 * (number % 2), 0.5, 0.1, 1 + number % 3)
        state.estimates.saw_guesses([(0.8, number % 4 > 0)])
    usual = choose(state.estimates.snapshot(), WIDTHS[-1], 0.0)
    assert state.left_s == math.inf
    assert policy.choice(state) == usual
    state.now_s, state.due_s = 5.0, 1e5
    assert policy.choice(state) == usual
    state.due_s = 15.5
    left = Left(50, float(f"{state.left_s:.2g}"))
    assert policy.choice(state) == choose_in_time(state.estimates.snapshot(), WIDTHS[-1], 0.0, left)


def test_a_text_is_thought_to_be_as_long_as_those_that_ended_by_themselves() -> None:
    state = EdgeState([1, 2], StopRules(500))
    state.due_s = 60.0
    assert _left(state) == Left(500, 60.0)
    for length in (20, 30, 40):
        state.estimates.length.take(length)
    assert _left(state) == Left(30, 60.0)
    state.committed(committed(2, list(range(3, 43))))
    assert _left(state).tokens == 1  # longer than those already


def test_only_texts_that_ended_by_themselves_tell_how_long_texts_are() -> None:
    for finish, samples in ((messages.STOP, 1), (messages.LENGTH, 0)):
        state = EdgeState([1, 2], StopRules(500))
        for _ in range(2):  # the end may be said twice
            state.committed(committed(2, [3, 4, 5], finish))
        assert (state.estimates.length.samples, state.estimates.length.mean) == (samples, 3.0 * samples)


def committed(position: int, tokens: list[int], finish: str = "") -> messages.Commit:
    return messages.Commit(1, position, messages.pack(tokens), 0, 0, 0.0, 0.0, 0.1, finish)


def test_what_tokens_take_varies_with_the_rounds_and_with_their_tokens() -> None:
    steady, lucky, slow = Estimates(), Estimates(), Estimates()
    for number in range(20):
        steady.saw_pass(3, 0.5, 0.0, 2)
        lucky.saw_pass(3, 0.5, 0.0, 1 + 2 * (number % 2))
        slow.saw_pass(3, 0.5, 0.4 * (number % 2), 2)
    assert steady.snapshot().token_spread_s == 0.0
    assert lucky.snapshot().token_spread_s > 0.1
    assert slow.snapshot().token_spread_s > 0.1
