"""The account of what speculation costs: waiting and wide passes come out of gains."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foredraft.cloud.ledger import BY_CHANCE, SHARE, Ledger
from foredraft.cloud.state import CloudState, Go, Limits, Timing, Wait
from foredraft.protocol import messages
from foredraft.protocol.messages import Chain, Open, Steer, pack
from foredraft.protocol.ports import Prediction, TargetCard, Verdict

CARD = TargetCard("m", "t", 2000, 100_000, 8)


def opened_ledger() -> Ledger:
    """One that has seen the pass with the prompt, and one token alone, in a second."""
    ledger = Ledger()
    ledger.book(0, 1, 50.0, 0.0)
    ledger.book(0, 1, 1.0, 0.0)
    return ledger


def test_the_pass_that_carries_the_prompt_tells_nothing() -> None:
    assert opened_ledger().balance_s == pytest.approx(SHARE)


def test_tokens_that_came_beyond_the_first_may_be_spent_on_waiting() -> None:
    ledger = opened_ledger()
    ledger.book(3, 4, 1.0, 0.0)
    assert ledger.balance_s == pytest.approx(3.0 + 5 * SHARE)
    ledger.book(3, 1, 1.0, 2.0)
    assert ledger.balance_s == pytest.approx(1.0 + 6 * SHARE)


def test_what_a_wide_pass_takes_more_than_one_alone_is_spent() -> None:
    ledger = opened_ledger()
    ledger.book(7, 1, 1.5, 0.0)
    assert ledger.balance_s == pytest.approx(2 * SHARE - 0.5)


def test_a_pass_that_was_slow_by_chance_counts_as_what_is_typical() -> None:
    ledger = opened_ledger()
    for _ in range(3):
        ledger.book(3, 1, 1.0, 0.0)
    before_s = ledger.balance_s
    ledger.book(3, 1, 50.0, 0.0)
    assert ledger.balance_s == pytest.approx(before_s + 1.0 + SHARE - 1.0)


def test_the_first_pass_of_a_width_may_be_slow_by_chance_where_other_sessions_know_better() -> None:
    ledger = Ledger((1.0, 1.0, 1.2))
    ledger.book(0, 1, 50.0, 0.0)
    ledger.book(0, 1, 1.0, 0.0)
    ledger.book(3, 1, 50.0, 0.0)
    assert ledger.balance_s == pytest.approx(1.0 + 2 * SHARE - 1.2)


def test_passes_that_are_slow_every_time_count_for_all_that_they_take_from_the_second_on() -> None:
    ledger = opened_ledger()
    ledger.book(15, 1, 10.0, 0.0)
    assert ledger.balance_s == pytest.approx(1.0 + 2 * SHARE - BY_CHANCE)
    ledger.book(15, 1, 10.0, 0.0)
    assert ledger.balance_s == pytest.approx(2.0 + 3 * SHARE - BY_CHANCE - 10.0)


def test_one_token_alone_that_was_slow_by_chance_is_no_credit_for_the_session() -> None:
    ledger = Ledger()
    ledger.book(0, 1, 50.0, 0.0)
    ledger.book(0, 1, 30.0, 0.0)
    for _ in range(3):
        ledger.book(3, 1, 1.0, 0.0)
    assert ledger.balance_s < 10.0


def test_it_is_empty_until_one_token_was_decoded_alone() -> None:
    ledger = Ledger()
    assert not ledger.empty  # the pass with the prompt may go anyhow
    ledger.book(3, 2, 1.0, 0.0)
    assert ledger.empty
    ledger.book(0, 1, 1.0, 0.0)
    assert not ledger.empty


class Session:
    """A cloud that is always offered wrong branches: the clock and the text of a session of no use."""

    def __init__(self, steer: Steer) -> None:
        opened = Open(1, pack([1]), 1, 0.0, 0, 1.0, 0, 5000, (), (), steer)
        self.state = CloudState(opened, CARD, Limits(), 0.0)
        self.now_s = 0.0
        self.passes: list[int] = []

    def offer(self, tokens: Sequence[int]) -> None:
        root = self.state.tree.root.anchor
        self.state.take_chain(Chain(root.position, root.hash, pack(tokens)))

    def commit(self, nodes: int, pass_s: float) -> None:
        plan = self.state.plan(self.now_s)
        while isinstance(plan, Wait):
            waited_s = plan.until_s - self.now_s
            self.now_s = plan.until_s
            plan = self.state.plan(self.now_s)
            assert waited_s > 0.0
        assert isinstance(plan, Go)
        began_s = self.now_s
        took_s = pass_s if plan.tokens else 1.0
        self.now_s += took_s
        verdict = Verdict(Prediction(8, (0,) * (len(plan.tokens) + 1), (1.0,) * (len(plan.tokens) + 1)), 0.0, took_s)
        timing = Timing(waited_s=began_s - self.state.idle_since_s)
        self.passes.append(len(plan.tokens))
        self.state.commit(plan, verdict, timing, self.now_s)


@settings(max_examples=50)
@given(st.integers(0, 1 << 32), st.floats(0.0, 3.0), st.floats(1.0, 3.0), st.integers(50, 300))
def test_whatever_the_orders_a_useless_draft_costs_little_more_than_decoding_alone(
    seed: int, patience_s: float, wide_s: float, tokens: int
) -> None:
    """Beside the first pass of the session at most the share, one wait and a wide pass or two of each width."""
    rng = Random(seed)
    session = Session(Steer(1, 1, alone_until=1 << 40, patience_s=patience_s, max_branches=9))
    for _ in range(tokens):
        if rng.random() < 0.5:
            session.offer([rng.randrange(1, 9) for _ in range(rng.randint(1, 7))])
        session.commit(7, wide_s)
    assert session.passes[1] == 0  # to know what to compare with
    first_s = patience_s + wide_s
    assert session.now_s <= first_s + (tokens - 1) * (1.0 + SHARE) + patience_s + wide_s


def test_a_cloud_that_may_not_decode_alone_has_no_account_to_overdraw() -> None:
    session = Session(Steer(1, 1, alone_until=0))
    for _ in range(20):
        session.offer([5])
        session.commit(1, 100.0)
    assert session.passes == [1] * 20
    assert not session.state.finish or session.state.finish == messages.LENGTH
