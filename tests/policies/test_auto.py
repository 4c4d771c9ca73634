"""``auto``: what it chooses, that it falls back, and what it never does."""

import tracemalloc
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.edge.estimates import Estimates, Snapshot
from foredraft.edge.path_probability import expected_tokens
from foredraft.edge.policy import Policy
from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.errors import ConfigError
from foredraft.policies import make_policy
from foredraft.policies.auto import (
    FIRST_NODES,
    MIN_SAMPLES,
    SECOND_NODES,
    AutoPolicy,
    choose,
    most_at_cloud,
    pass_nodes,
    rounded_up,
    steps_worth_waiting,
    token_worth_s,
)
from foredraft.policies.hints import PROBE_EVERY, PROBE_TOKENS
from foredraft.protocol.anchor import ORIGIN, Anchor
from foredraft.protocol.averages import ENOUGH, WIDTHS, width_class
from foredraft.protocol.messages import Ready
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import StopRules
from foredraft.protocol.tree import Node
from foredraft_sim.bench.policies.setting import Times
from policies.stage import ROBOT, USELESS, Played, play

FAR = Times(pass_s=0.03, flat_tokens=8, step_s=0.003, round_trip_s=0.3)
NEAR = Times(pass_s=0.03, flat_tokens=8, step_s=0.003, round_trip_s=0.009)


def seen(
    *,
    round_trip_s: float = 0.1,
    step_s: float = 0.05,
    ranks: tuple[float, ...] = (0.6, 0.1),
    passes_s: tuple[float, ...] = (1.0,) * len(WIDTHS),
    samples: int = 100,
) -> Snapshot:
    return Snapshot(round_trip_s, 0.0, step_s, passes_s[0], 1.0, 4.0, passes_s, ranks, samples)


SNAPSHOTS = st.builds(
    seen,
    round_trip_s=st.floats(0.01, 10.0),
    step_s=st.floats(0.01, 2.0),
    ranks=st.floats(0.0, 1.0).map(lambda first: (first, (1.0 - first) * 0.3)),
    passes_s=st.lists(st.floats(0.0, 0.5), min_size=len(WIDTHS), max_size=len(WIDTHS)).map(
        lambda rises: tuple(1.0 + sum(rises[:width]) for width in range(len(rises)))
    ),
)


def saved_s(snapshot: Snapshot, nodes: int, steps: int) -> float:
    """Device seconds that waiting for so many draft steps saves against decoding alone."""
    if not steps:
        return 0.0
    wider_s = snapshot.pass_s(nodes) - snapshot.pass_s(0)
    tokens = expected_tokens(snapshot.ranks, nodes, steps)
    return (tokens - 1.0) * snapshot.pass_s(0) - wider_s - steps * snapshot.draft_step_s


@given(SNAPSHOTS, st.lists(st.floats(0.0, 20.0), min_size=2, max_size=2).map(sorted))
def test_a_larger_price_never_chooses_a_wait_that_saves_fewer_device_seconds(
    snapshot: Snapshot, weights: list[float]
) -> None:
    less, more = (saved_s(snapshot, 7, steps_worth_waiting(snapshot, 7, weight)) for weight in weights)
    assert more >= less - 1e-6


def test_the_price_is_of_the_clouds_seconds_passes_are_saved_where_time_is_not() -> None:
    """Over a far link waiting costs more time than it saves; it saves passes all the same, which have a price."""
    far = seen(round_trip_s=1.5, step_s=0.01, ranks=(0.6, 0.1))
    assert steps_worth_waiting(far, 7, 0.0) == 0
    assert steps_worth_waiting(far, 7, 2.0) > 0
    assert token_worth_s(far, 2.0) == token_worth_s(far, 0.0) + 2.0 * far.pass_s(0)


def test_a_larger_price_never_costs_more_device_seconds_over_a_few_sessions() -> None:
    """Of both devices: the edge's energy and the cloud's bill are in it alike."""
    billed = []
    for weight in (0, 1, 8):
        reports = [play(f"auto:cost_weight={weight}", new_tokens=96, seed=seed).report for seed in range(1, 5)]
        billed.append(sum(report.target_s + report.draft_s for report in reports))
    assert billed == sorted(billed, reverse=True)


def test_nothing_is_waited_for_before_enough_was_seen() -> None:
    choice = choose(seen(samples=MIN_SAMPLES - 1), 31, 0.0)
    assert (choice.steps, choice.patience_s, choice.nodes) == (0, 0.0, 31)
    narrow = seen(samples=MIN_SAMPLES - 1, passes_s=(1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    assert choose(narrow, 31, 0.0).nodes == SECOND_NODES
    dear = seen(samples=MIN_SAMPLES - 1, passes_s=(1.0, 1.0, 1.0, 2.0, 0.0, 0.0, 0.0))
    assert choose(dear, 31, 0.0).nodes == FIRST_NODES
    rising = seen(samples=MIN_SAMPLES - 1, passes_s=(1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2))
    assert choose(rising, 31, 0.0).nodes == FIRST_NODES
    nothing = seen(samples=MIN_SAMPLES - 1, passes_s=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    assert choose(nothing, 31, 0.0).nodes == FIRST_NODES
    assert choose(seen(samples=MIN_SAMPLES), 31, 0.0).steps > 0


@pytest.mark.parametrize(
    "snapshot",
    [seen(round_trip_s=5.0), seen(step_s=3.0), seen(ranks=(0.02, 0.01))],
    ids=["far", "slow draft", "poor draft"],
)
def test_the_cloud_does_not_wait_where_it_cannot_win(snapshot: Snapshot) -> None:
    assert choose(snapshot, 31, 0.0).steps == 0


def test_passes_are_as_wide_as_pays() -> None:
    rising = (1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0)
    assert pass_nodes(seen(passes_s=rising), 31, 0.0) == 7
    assert pass_nodes(seen(), 31, 0.0) == 31
    assert pass_nodes(seen(), 20, 0.0) == 15
    assert pass_nodes(seen(passes_s=(1.0, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0)), 31, 0.0) == 0


def test_only_one_width_beyond_those_seen_is_tried() -> None:
    assert pass_nodes(seen(passes_s=(1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)), 31, 0.0) == 7


def test_a_draft_that_has_become_useless_is_given_up_within_100_rounds() -> None:
    estimates = Estimates()
    for _ in range(100):
        estimates.round_trip_s.take(0.1)
        estimates.draft_step_s.take(0.05)
        estimates.saw_guesses([(0.8, True)])
        estimates.saw_pass(7, 1.0, 0.0, 4)
        estimates.saw_pass(0, 1.0, 0.0, 1)
    assert choose(estimates.snapshot(), 31, 0.0).steps > 0
    rounds = 0
    while choose(estimates.snapshot(), 31, 0.0).useful:
        estimates.saw_guesses([(0.8, False)])
        estimates.saw_pass(7, 1.0, 0.2, 1)
        rounds += 1
    assert 1 < rounds <= 100


def test_a_draft_that_was_useless_from_the_start_is_verified_after_eight_tokens_in_probes_alone() -> None:
    played = play("auto", NEAR, pair=USELESS, new_tokens=160)
    cloud = play("cloud", NEAR, pair=USELESS, new_tokens=160)
    later = [position for position in played.drafted_at() if position > PROBE_TOKENS + 2]
    assert all((position - 1) % PROBE_EVERY <= PROBE_TOKENS + 2 for position in later)
    assert played.report.e2e_s <= 1.01 * cloud.report.e2e_s
    assert played.report.hints == 0


class FirstSlow:
    """The first pass of each width takes six times as long, by chance."""

    def __init__(self) -> None:
        self.had: set[int] = set()

    def __call__(self, nodes: int) -> float:
        width = width_class(nodes)
        slow = nodes > 0 and width not in self.had
        self.had.add(width)
        return 6.0 if slow else 1.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_width_that_was_slow_by_chance_at_first_is_used_all_the_same(seed: int) -> None:
    lucky, unlucky = (play("auto", new_tokens=128, seed=seed, luck=luck) for luck in (None, FirstSlow()))
    wide = [sum(len(batch.tokens) > 7 for _, _, batch in played.passes) for played in (lucky, unlucky)]
    assert wide[1] >= 0.7 * wide[0] > 10
    lost_s = 4 * 5.0 * ROBOT.pass_s  # the slow passes themselves, of four widths
    assert unlucky.report.e2e_s <= 1.1 * lucky.report.e2e_s + lost_s


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_single_slow_passes_do_not_make_it_give_up_what_it_gains(seed: int) -> None:
    """One pass in fifty takes ten times as long, whoever asks for it."""
    took_s = {}
    for policy in ("auto", "cloud"):
        rng = Random(seed)
        lost: list[float] = []

        def luck(nodes: int, rng: Random = rng, lost: list[float] = lost) -> float:
            slow = rng.random() < 0.02
            lost.append(9.0 * ROBOT.pass_s * slow)
            return 10.0 if slow else 1.0

        took_s[policy] = play(policy, new_tokens=128, seed=seed, luck=luck).report.e2e_s - sum(lost)
    assert took_s["auto"] <= 0.6 * took_s["cloud"]


@pytest.mark.parametrize("seed", [6, 11])
def test_a_few_wrong_guesses_at_the_beginning_do_not_make_it_give_up(seed: int) -> None:
    """With seed 11 five of the first six first choices are wrong, by chance, at an acceptance of 0.4."""
    place = Times(pass_s=0.06, flat_tokens=32, step_s=0.006, round_trip_s=0.012)
    auto, cloud = (
        play(policy, place, acceptance=0.4, new_tokens=128, seed=seed).report for policy in ("auto", "cloud")
    )
    assert auto.e2e_s <= 0.7 * cloud.e2e_s


@pytest.mark.parametrize("place", [ROBOT, NEAR, FAR], ids=["robot", "near", "far"])
@pytest.mark.parametrize("acceptance", [0.3, 0.8])
def test_it_is_not_slower_than_streaming(place: Times, acceptance: float) -> None:
    auto, cloud = (play(policy, place, acceptance=acceptance).report for policy in ("auto", "cloud"))
    assert auto.e2e_s <= 1.02 * cloud.e2e_s


def promoted(played: Played, pass_s: float) -> int:
    """Passes over draft nodes that began at the very end of the pass before."""
    return sum(
        bool(batch.tokens) and began_s - before_s <= pass_s + 1e-6
        for (before_s, _, _), (began_s, _, batch) in zip(played.passes, played.passes[1:], strict=False)
    )


@pytest.mark.parametrize("policy", ["auto", "ahead"])
def test_a_branch_that_came_true_is_verified_next_without_a_round_trip(policy: str) -> None:
    assert promoted(play(policy), ROBOT.pass_s) >= 10
    assert promoted(play("sync"), ROBOT.pass_s) == 0


@pytest.mark.parametrize("policy", ["auto", "ahead", "ahead:width=2,branches=2", "seed"])
@pytest.mark.parametrize("place", [ROBOT, NEAR, FAR], ids=["robot", "near", "far"])
def test_a_dead_branch_is_never_verified(policy: str, place: Times) -> None:
    """Each verified node is one that was drafted, with exactly the committed text above it."""
    watcher = Watcher(make_policy(policy))
    played = play(watcher, place)
    text = [1, *played.report.tokens]
    for _, position, batch in played.passes:
        tip = ORIGIN.after(text[:position])
        anchors = [tip]
        for token, parent in zip(batch.tokens, batch.parents, strict=True):
            anchors.append(anchors[parent + 1].then(token))
        assert set(anchors[1:]) <= watcher.shipped


class Watcher:
    """A policy that remembers what was shipped, and that its budgets held."""

    name = "watcher"

    def __init__(self, inner: Policy) -> None:
        self.inner = inner
        self.shipped: set[Anchor] = set()
        self.most_nodes = 0

    def verify_params(self, state: EdgeState) -> VerifyParams:
        return self.inner.verify_params(state)

    def step(self, state: EdgeState) -> Step | None:
        step = self.inner.step(state)
        assert step is None or all(node.alive for node in step.nodes)
        return step

    def ship(self, state: EdgeState) -> list[Node]:
        wanted = list(self.inner.ship(state))
        self.shipped |= {node.anchor for leaf in wanted for node in leaf.path()}
        new = {node for leaf in wanted for node in leaf.path() if not node.sent}
        if isinstance(self.inner, AutoPolicy) and new:
            assert len(new) <= most_at_cloud(state.estimates.snapshot(), self.inner.choice(state).nodes)
        assert state.ready is None or len(state.tree) <= state.ready.max_nodes
        self.most_nodes = max(self.most_nodes, len(state.tree))
        return wanted


@pytest.mark.parametrize("acceptance", [0.3, 0.9])
def test_budgets_hold(acceptance: float) -> None:
    watcher = Watcher(AutoPolicy())
    untied = replace(NEAR, pass_s=0.0304)  # nothing ends in the same instant as something else
    played = play(watcher, untied, acceptance=acceptance, new_tokens=128)
    assert max(len(batch.tokens) for _, _, batch in played.passes) <= 15  # 7 pay, the next width was tried
    assert sum(len(batch.tokens) > 7 for _, _, batch in played.passes) <= ENOUGH + 1  # one was on its way
    assert watcher.most_nodes > 0


def test_the_price_is_of_the_edges_seconds_a_draft_step_that_is_not_worth_it_is_not_made() -> None:
    slow = Times(pass_s=0.03, flat_tokens=8, step_s=0.029, round_trip_s=0.009)
    free, dear = (play(f"auto:cost_weight={weight}", slow, acceptance=0.3).report for weight in (0, 10))
    assert dear.draft_s < 0.5 * free.draft_s


@pytest.mark.parametrize("spec", ["auto:cost_weight=-1", "auto:cost_weight=nan", "auto:width=0", "ahead:batch=0"])
def test_impossible_parameters_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="must be"):
        make_policy(spec)


@given(st.floats(1e-6, 50.0))
def test_patience_is_rounded_up_and_not_by_more_than_half(seconds: float) -> None:
    assert seconds * (1.0 - 1e-9) <= rounded_up(seconds) <= 1.5 * seconds


def knowing() -> EdgeState:
    """An edge that has seen enough to wait for chains of several tokens."""
    state = EdgeState([1, 2, 3], StopRules(500))
    state.connected(Ready(1, "m", "t", 2000, 1000, 8, (), 64, 31, 32, ()))
    for _ in range(50):
        state.estimates.round_trip_s.take(0.05)
        state.estimates.draft_step_s.take(0.02)
        state.estimates.saw_guesses([(0.9, True)])
        state.estimates.saw_pass(3, 1.0, 0.0, 3)
        state.estimates.saw_pass(0, 1.0, 0.0, 1)
    return state


def test_a_chain_is_sent_when_it_is_as_long_as_the_cloud_waits_for() -> None:
    state, policy = knowing(), AutoPolicy()
    steps = policy.choice(state).steps
    assert steps > 2
    for depth in range(1, steps + 1):
        step = policy.step(state)
        assert step is not None
        state.attach_guesses(step.nodes, [[Guess(10 + depth, 0.9)]], step.width)
        assert len(policy.ship(state)) == (depth if depth >= steps else 0)


def test_what_was_sent_before_does_not_keep_back_what_is_likelier() -> None:
    state, policy = knowing(), AutoPolicy()
    most = most_at_cloud(state.estimates.snapshot(), policy.choice(state).nodes)
    unlikely = state.attach_guesses([state.root], [[Guess(100 + n, 0.01) for n in range(most)]], most)
    for node in unlikely:
        node.sent = True
    (likely,) = state.attach_guesses([unlikely[0]], [[Guess(9, 0.99)]], 1)
    assert policy.ship(state) == []  # there are as many that are as likely, and they came first
    (likely,) = state.attach_guesses([state.root], [[Guess(9, 0.5)]], 1)
    assert policy.ship(state) == [likely]


def test_told_what_passes_take_it_goes_as_wide_as_pays_without_trying() -> None:
    state = EdgeState([1, 2, 3], StopRules(500))
    state.connected(Ready(1, "m", "t", 2000, 1000, 8, (), 64, 31, 32, (), passes_s=(1.0, 1.0, 1.0, 1.0, 1.1, 9.0)))
    for _ in range(MIN_SAMPLES):
        state.estimates.round_trip_s.take(0.05)
        state.estimates.draft_step_s.take(0.02)
        state.estimates.saw_guesses([(0.9, True)])
        state.estimates.saw_pass(0, 1.0, 0.0, 1)
    assert AutoPolicy().choice(state).nodes == 15


def test_a_drafter_that_has_no_more_ideas_sends_what_it_has() -> None:
    state, policy = knowing(), AutoPolicy()
    (child,) = state.attach_guesses([state.root], [[Guess(9, 0.9)]], policy.width)
    assert not policy.ship(state)
    state.attach_guesses([child], [[]], policy.width)
    assert policy.ship(state) == [child]


def test_what_an_earlier_session_learned_serves_a_short_answer() -> None:
    learned = play("auto", NEAR, acceptance=0.9, new_tokens=96).session.state.estimates
    fresh, knowing = (
        play("auto", NEAR, acceptance=0.9, new_tokens=24, seed=2, estimates=estimates).report
        for estimates in (None, learned)
    )
    assert knowing.e2e_s < fresh.e2e_s


def test_what_is_remembered_of_choices_takes_less_than_a_megabyte_however_many_there_were() -> None:
    choose.cache_clear()
    tracemalloc.start()
    try:
        for number in range(2_000):
            passes_s = tuple(1.0 + (number + width) * 1e-3 for width in range(len(WIDTHS)))
            choose(seen(round_trip_s=0.1 + number * 1e-3, step_s=0.05 + number * 1e-6, passes_s=passes_s), 31, 0.0)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
