"""Rejection sampling: what comes is the target's distribution, whatever the draft proposes."""

from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

import pytest

from chance import follows
from foredraft.protocol.anchor import ORIGIN, Anchor
from foredraft.protocol.rejection import MOST_WEIGHT, Proposal, Trial, key_of, propose, said, trial
from foredraft.protocol.sampling import Sampling

DRAWS = 6_000
TARGET = (0.4, 0.25, 0.2, 0.1, 0.04, 0.01)
PROPOSALS = {
    "like the target": Proposal((0, 1, 2, 3, 4, 5), (400, 250, 200, 100, 40, 10)),
    "of the likeliest": Proposal((0, 1, 2), (40, 25, 20)),
    "of something else": Proposal((5, 4, 1, 3), (65_535, 30_000, 500, 1)),
    "of one token": Proposal((2,), (1,)),
    "of nothing": Proposal((), ()),
}


def prefixes(draws: int) -> Sequence[Anchor]:
    """Prefixes of one text, one after another."""
    return list(accumulate(range(draws), lambda prefix, token: prefix.then(token % 7), initial=ORIGIN))[1:]


def other_than(tried: Trial) -> tuple[float, int]:
    """How probable the tokens that are no candidates are, and one of those, drawn with chance of its own."""
    shares = [0.0 if token in tried.tokens else chance for token, chance in enumerate(TARGET)]
    mark = tried.noise_seed / 2**63 * sum(shares)
    return sum(shares), min(bisect(list(accumulate(shares)), mark), len(shares) - 1)


def draw(proposal: Proposal, seed: int) -> list[tuple[Trial, int]]:
    """At each prefix, what was tried, and what came."""
    found = []
    for prefix in prefixes(DRAWS):
        tried = trial(key_of(seed, prefix), proposal)
        rest, other = other_than(tried)
        found.append((tried, said(tried, [TARGET[token] for token in tried.tokens], rest, other)))
    return found


@pytest.mark.parametrize("name", PROPOSALS)
def test_what_comes_is_distributed_as_the_target_says(name: str) -> None:
    came = Counter(token for _, token in draw(PROPOSALS[name], seed=1))
    assert follows({name: (came, dict(enumerate(TARGET)))})


@pytest.mark.parametrize("name", [name for name, proposal in PROPOSALS.items() if len(proposal.tokens) > 1])
def test_what_is_tried_first_is_distributed_as_the_draft_says(name: str) -> None:
    proposal = PROPOSALS[name]
    total = sum(proposal.weights)
    first = Counter(tried.tokens[0] for tried, _ in draw(proposal, seed=2))
    assert follows({name: (first, {t: w / total for t, w in zip(proposal.tokens, proposal.weights, strict=True)})})


@pytest.mark.parametrize("name", PROPOSALS)
def test_the_first_candidate_is_accepted_as_often_as_can_be(name: str) -> None:
    """1 less the total variation distance."""
    proposal = PROPOSALS[name]
    total = sum(proposal.weights)
    best = sum(min(TARGET[t], w / total) for t, w in zip(proposal.tokens, proposal.weights, strict=True))
    accepted = sum(tried.tokens[:1] == (token,) for tried, token in draw(proposal, seed=3)) / DRAWS
    assert accepted == pytest.approx(best, abs=4.0 * (0.25 / DRAWS) ** 0.5)


def test_a_draft_that_is_the_target_is_accepted_always() -> None:
    assert all(tried.tokens[0] == token for tried, token in draw(PROPOSALS["like the target"], seed=4))


def test_a_prefix_has_chance_of_its_own_and_the_same_each_time() -> None:
    proposal = PROPOSALS["like the target"]
    here, beside = ORIGIN.after([1, 2, 3]), ORIGIN.after([1, 3, 3])
    assert trial(key_of(5, here), proposal) == trial(key_of(5, here), proposal)
    keys = {key_of(5, here), key_of(5, beside), key_of(6, here)}
    assert len(keys) == 3
    assert len({trial(key, proposal).noise_seed for key in keys}) == 3


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_a_proposal_has_the_temperature_and_sixteen_bits(temperature: float) -> None:
    likeliest = {7: 0.5, 3: 0.25, 9: 0.1, 4: 1e-9}
    proposal = propose(likeliest, Sampling(temperature))
    wanted = [MOST_WEIGHT * (chance / 0.5) ** (1 / temperature) for chance in likeliest.values()]
    assert proposal.tokens[:3] == (7, 3, 9)
    assert proposal.weights[:3] == tuple(round(weight) for weight in wanted[:3])
    assert all(0 < weight <= MOST_WEIGHT for weight in proposal.weights)
    assert (4 in proposal.tokens) == (wanted[3] >= 0.5)


def test_filters_cut_a_proposal_as_they_cut_the_target() -> None:
    likeliest = {7: 0.5, 3: 0.25, 9: 0.15, 4: 0.1}
    assert propose(likeliest, Sampling(1.0, top_k=2)).tokens == (7, 3)
    assert propose(likeliest, Sampling(1.0, top_p=0.7)).tokens == (7, 3)
    assert propose(likeliest, Sampling(1.0, top_p=0.3)).tokens == (7,)
    assert propose({}, Sampling(1.0)) == Proposal((), ())
    assert propose({1: 0.0}, Sampling(1.0)) == Proposal((), ())


def test_without_a_proposal_the_token_is_the_targets_draw() -> None:
    assert said(trial(9, None), [], 1.0, 5) == 5
    assert said(trial(9, Proposal((), ())), [], 1.0, 5) == 5


def test_what_the_target_never_says_does_not_come() -> None:
    """All of it on two tokens, neither of which the draft thinks of first."""
    for key in range(2_000):
        tried = trial(key, Proposal((3, 1, 2), (60_000, 3, 2)))
        chances = {1: 0.7, 2: 0.3, 3: 0.0}
        assert said(tried, [chances[token] for token in tried.tokens], 0.0, 99) in (1, 2)
