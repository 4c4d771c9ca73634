"""By rejection sampling a synthetic target accepts what is tried as often as the pair says, whatever is proposed."""

from collections import Counter
from itertools import permutations

import pytest

from chance import follows
from foredraft.protocol.ports import Pass, Prediction
from foredraft.protocol.rejection import Proposal, trial
from foredraft.protocol.sampling import Sampling
from foredraft_sim.tokens.fitted import FittedPair, Outcome, Topic
from foredraft_sim.tokens.spoken import SpokenPair
from foredraft_sim.tokens.synthetic import SyntheticPair, SyntheticTarget

ROWS = 32
PASSES = 100
ALIKE = (
    Outcome(0.6, 0, (0.5, 0.3), ((-1, 0.9),)),
    Outcome(0.2, 1, (0.4, 0.4), ((-1, 0.9),)),
    Outcome(0.2, -1, (0.4, 0.4), ((0, 0.4),)),
)
PAIRS = (
    SyntheticPair(ranks=(0.6, 0.2), exits=((8, 0.8),), vocab_size=1000),
    FittedPair((Topic(1.0, (ALIKE,), ((1.0,),), ((1.0,),), ((1.0,),)),), layers=32, exits=(8,), vocab_size=1000),
)


async def accepted(pair: SpokenPair, candidates: int) -> tuple[Counter[int], Counter[bool]]:
    """How often which of the candidates that were tried was accepted (-1: none), and how often the exit was right."""
    places, right = Counter[int](), Counter[bool]()
    orders = [Proposal(order[:candidates], (9, 3, 1)[:candidates]) for order in permutations((1, 5, 77))]
    for number in range(PASSES):
        slot = await SyntheticTarget(pair).slot([0], Sampling(1.0, seed=number))
        tried = tuple(trial(number * ROWS + row, orders[row % len(orders)]) for row in range(ROWS))
        thoughts: list[Prediction] = []
        batch = Pass((0,), (1,) * (ROWS - 1), tuple(range(-1, ROWS - 2)), exits=(8,), trials=tried)
        verdict = await slot.verify(batch, thoughts.append)
        for one, comes, thought in zip(tried, verdict.prediction.tokens, thoughts[0].tokens, strict=True):
            places[one.tokens.index(comes) if comes in one.tokens else -1] += 1
            right[comes == thought] += 1
    return places, right


@pytest.mark.parametrize("pair", PAIRS, ids=["synthetic", "fitted"])
async def test_the_candidate_that_is_tried_nth_is_accepted_as_often_as_the_pair_says(pair: SpokenPair) -> None:
    places, right = await accepted(pair, 3)
    assert follows({"places": (places, {0: 0.6, 1: 0.2, -1: 0.2}), "exit": (right, {True: 0.8, False: 0.2})})


@pytest.mark.parametrize("pair", PAIRS, ids=["synthetic", "fitted"])
async def test_what_a_proposal_leaves_out_is_not_accepted(pair: SpokenPair) -> None:
    places, _ = await accepted(pair, 1)
    assert follows({"places": (places, {0: 0.6, -1: 0.4})})


@pytest.mark.parametrize("pair", PAIRS, ids=["synthetic", "fitted"])
async def test_without_a_proposal_the_text_is_that_of_the_other_rule(pair: SpokenPair) -> None:
    texts = []
    for trials in ((), (trial(3, None),) * 2):
        slot = await SyntheticTarget(pair).slot([0], Sampling(1.0, seed=4))
        verdict = await slot.verify(Pass((0,), (7,), (-1,), trials=trials), lambda prediction: None)
        texts.append(verdict.prediction.tokens)
    assert texts[0] == texts[1]
