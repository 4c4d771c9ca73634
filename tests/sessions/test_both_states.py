"""Decisions at each end, one by one: what is refused, resent, held, cut and chosen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.cloud.state import CloudState, Go, Limits, Timing, Wait
from foredraft.edge.state import MAX_REFUSALS, EdgeState
from foredraft.protocol import messages
from foredraft.protocol.messages import MAX_CHAINS, Chain, Commit, Hint, Open, Ready, Refused, Steer, pack, unpack
from foredraft.protocol.ports import Guess, Prediction, TargetCard, Verdict
from foredraft.protocol.sampling import StopRules
from sessions.room import PROMPT, text

READY = Ready(1, "m", "t", 2000, 1000, 8, (4,), 6, 8, 2, ())
CARD = TargetCard("m", "t", 2000, 1000, 8, (4,), max_pass_nodes=3)


@pytest.fixture
def state() -> EdgeState:
    state = EdgeState(PROMPT, StopRules(50))
    state.connected(READY)
    return state


def draft(state: EdgeState, tokens: list[int]) -> None:
    """Grow a chain below the root."""
    node = state.root
    for token in tokens:
        (node,) = state.attach_guesses([node], [[Guess(token, 0.5)]], 1)


def ship_all(state: EdgeState) -> list[Chain]:
    return state.ship(list(state.tree.nodes()))


def refuse(chain: Chain, code: str) -> Refused:
    return Refused(1, code, "", 0.0, chain.position, chain.hash)


def test_a_chain_longer_than_the_cloud_takes_goes_in_pieces_and_only_once(state: EdgeState) -> None:
    draft(state, text(5))
    last = list(state.tree.nodes())[-1]
    grows = state.ship([last])
    assert [unpack(grow.tokens) for grow in grows] == [text(5)[:2], text(5)[2:4], text(5)[4:]]
    assert [grow.position for grow in grows] == [3, 5, 7]
    assert ship_all(state) == []


@pytest.mark.parametrize("answers", [0, 2])
def test_a_drafter_that_answers_for_another_number_of_nodes_is_an_error(state: EdgeState, answers: int) -> None:
    with pytest.raises(ValueError, match=f"asked about 1 nodes and answered for {answers}"):
        state.attach_guesses([state.root], [[Guess(9, 0.5)]] * answers, 1)
    assert not state.tree.live


def test_after_full_nothing_is_sent_before_the_next_commit_and_then_all_that_lives(state: EdgeState) -> None:
    draft(state, text(4))
    first, *_ = grows = ship_all(state)
    state.refused(refuse(first, messages.FULL))
    state.refused(refuse(grows[-1], messages.UNKNOWN_ANCHOR))  # what hung below the refused chain
    assert ship_all(state) == []
    assert not state.waiting_on_cloud
    state.committed(Commit(1, 3, pack(text(1)), 0, 0, 0.0, 0.0, 0.0))
    assert [token for chain in ship_all(state) for token in unpack(chain.tokens)] == text(4)[1:]


def test_an_unknown_anchor_is_sent_again_but_not_for_ever(state: EdgeState) -> None:
    draft(state, text(1))
    for _ in range(MAX_REFUSALS):
        (grow,) = ship_all(state)
        state.refused(refuse(grow, messages.UNKNOWN_ANCHOR))
    assert ship_all(state) == []


def test_a_refusal_of_what_a_commit_has_killed_changes_nothing(state: EdgeState) -> None:
    draft(state, text(3))
    _, below = ship_all(state)[:2]
    state.committed(Commit(1, 3, pack([9]), 0, 0, 0.0, 0.0, 0.0))
    draft(state, [5])
    ship_all(state)
    state.refused(refuse(below, messages.UNKNOWN_ANCHOR))
    assert state.waiting_on_cloud
    assert ship_all(state) == []


def test_commits_in_any_order_make_one_text_and_repeated_ones_none(state: EdgeState) -> None:
    first = Commit(1, 3, pack(text(2)), 0, 0, 0.0, 0.0, 0.0)
    second = Commit(1, 5, pack(text(5)[2:]), 0, 0, 0.0, 0.0, 0.0, messages.STOP)
    assert state.committed(second) == []
    assert state.finish == ""
    assert state.committed(first) == text(5)
    assert state.finish == messages.STOP
    assert state.committed(first) == state.committed(second) == []
    assert state.tally.passes == 2


def test_a_step_grows_no_more_than_there_is_room_for_and_may_be_asked_again(state: EdgeState) -> None:
    guesses = [Guess(token, 0.1) for token in range(8)]
    assert len(state.attach_guesses([state.root], [guesses], 8)) == READY.max_nodes
    assert state.root.expanded == 0
    assert state.room == 0
    state.take_hint(Hint(1, 3, 4, pack([9, 9]), 1.0, 0.0))
    assert len(state.tree) == READY.max_nodes


def test_a_guess_outweighs_the_placeholder_of_a_hint(state: EdgeState) -> None:
    state.take_hint(Hint(1, 3, 4, pack([5]), 1.0, 0.0))
    (node,) = state.tree.nodes()
    placeholder = node.probability
    state.attach_guesses([state.root], [[Guess(5, 0.9)]], 1)
    assert node.probability > placeholder


def test_a_repeated_hint_counts_once_and_a_stale_one_not_at_all(state: EdgeState) -> None:
    hint = Hint(1, 3, 4, pack(text(1)), 1.0, 0.0)
    state.take_hint(hint)
    state.take_hint(hint)
    state.committed(Commit(1, 3, pack(text(2)), 0, 0, 0.0, 0.0, 0.0))
    state.take_hint(hint)
    assert (state.tally.hints, state.tally.hints_right) == (1, 1)
    assert len(state.tree) == 0


EVENTS = st.lists(
    st.tuples(st.sampled_from(["draft", "wide", "hint", "commit"]), st.integers(0, 9), st.integers(0, 3)), max_size=20
)


@given(EVENTS)
def test_the_chain_that_is_remembered_is_always_the_likeliest(events: list[tuple[str, int, int]]) -> None:
    state = EdgeState(PROMPT, StopRules(50))
    state.connected(READY)
    for kind, place, token in events:
        nodes = [state.root, *state.tree.nodes()]
        parent = nodes[place % len(nodes)]
        match kind:
            case "draft":
                chain = state.likeliest()
                tip = chain[-1] if chain else state.root
                state.attach_guesses([tip if place % 2 else parent], [[Guess(token, 0.1 + place / 10)]], 1)
            case "wide":
                state.attach_guesses([parent], [[Guess(one, 0.5 / (1 + abs(one - token))) for one in range(3)]], 3)
            case "hint":
                state.take_hint(Hint(1, state.position, 4, pack([token, place]), 0.9, 0.0))
            case "commit":
                state.committed(Commit(1, state.position, pack([token]), 0, 0, 0.0, 0.0, 0.0))
        assert list(state.likeliest()) == state.root.likeliest()


def cloud_state(steer: Steer | None = None, max_nodes: int = 4) -> CloudState:
    opened = Open(1, pack(PROMPT), 3, 0.0, 0, 1.0, 0, 50, (), (), steer or Steer(1, 1))
    return CloudState(opened, CARD, Limits(max_nodes=max_nodes, idle_s=60.0), 0.0)


def grow(state: CloudState, tokens: list[int]) -> Refused | None:
    anchor = state.tree.root.anchor
    return state.take_chain(Chain(anchor.position, anchor.hash, pack(tokens)))


def test_nodes_that_are_held_already_take_no_room() -> None:
    full = cloud_state()
    assert grow(full, [5, 6, 7, 8]) is None
    assert grow(full, [5, 6, 7, 8]) is None
    refused = grow(full, [5, 9])
    assert refused is not None
    assert (refused.code, refused.position) == (messages.FULL, 3)
    assert len(full.tree) == 4


def test_a_pass_covers_what_came_first_within_its_bounds() -> None:
    def chosen(steer: Steer) -> list[int]:
        one = cloud_state(steer, max_nodes=64)
        grow(one, [5, 6])
        grow(one, [7, 8])
        plan = one.plan(0.0)
        assert isinstance(plan, Go)
        return list(plan.tokens)

    assert chosen(Steer(1, 1, max_branches=1)) == [5, 6]
    assert chosen(Steer(1, 1, max_branches=2)) == [5, 6, 7]  # the target takes three
    assert chosen(Steer(1, 1, max_branches=2, max_nodes=1)) == [5]


def test_a_target_without_room_for_drafts_decodes_alone() -> None:
    opened = Open(1, pack(PROMPT), 3, 0.0, 0, 1.0, 0, 50, (), (), Steer(1, 1))
    bare = CloudState(opened, TargetCard("m", "t", 2000, 1000, 8, max_pass_nodes=0), Limits(), 0.0)
    grow(bare, [5])
    assert bare.plan(0.0) == Go()


def test_patience_ends_with_a_pass_even_if_the_clock_stops_a_tick_short() -> None:
    patient = cloud_state(Steer(1, 1, patience_s=0.3, min_nodes=2))
    grow(patient, [5])
    assert patient.plan(0.0) == Wait(0.3)
    assert isinstance(patient.plan(0.3 - 1e-9), Go)
    assert cloud_state().plan(0.0) == Wait(60.0, idle=True)


def ending(**changes: object) -> CloudState:
    """A cloud whose text ends after three tokens, or as ``changes`` to Open say."""
    fields = {"max_new_tokens": 3, "stop_tokens": (), **changes}
    opened = Open(
        session=1, tokens=pack(PROMPT), start=3, temperature=0.0, top_k=0, top_p=1.0, seed=0, stop_strings=(),
        steer=Steer(1, 1), **fields,  # type: ignore[arg-type]
    )  # fmt: skip
    return CloudState(opened, CARD, Limits(), 0.0)


def test_no_pass_covers_a_draft_of_the_last_token_which_is_the_targets_own() -> None:
    short = ending()
    grow(short, [5, 6, 7, 8])
    plan = short.plan(0.0)
    assert isinstance(plan, Go)
    assert plan.tokens == (5, 6)


def test_of_an_accepted_chain_that_a_stop_token_cuts_the_cache_keeps_the_text_alone() -> None:
    cut = ending(max_new_tokens=50, stop_tokens=(6,))
    grow(cut, [5, 6, 7])
    plan = cut.plan(0.0)
    assert isinstance(plan, Go)
    verdict = Verdict(Prediction(8, (5, 6, 7, 8), (1.0,) * 4), 0.0, 0.5)
    commit, kept = cut.commit(plan, verdict, Timing(), 1.0)
    assert (unpack(commit.tokens), commit.finish) == ([5, 6], messages.STOP)
    assert (commit.drafted, commit.accepted) == (3, 2)
    assert kept == [0, 1]
    assert cut.tree.tokens == [*PROMPT, 5, 6]


def test_no_more_chains_are_shipped_at_once_than_one_message_holds() -> None:
    state = EdgeState(PROMPT, StopRules(50))
    state.connected(Ready(2, "m", "t", 2000, 1000, 8, (4,), 1000, 8, 2, ()))
    state.attach_guesses([state.root], [[Guess(token, 0.001) for token in range(300)]], 300)
    assert len(ship_all(state)) == MAX_CHAINS
    assert len(ship_all(state)) == 300 - MAX_CHAINS
    assert ship_all(state) == []
