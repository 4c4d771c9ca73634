"""Rejection sampling over logits: rows follow the filtered softmax, whatever is proposed for them."""

from collections import Counter

import pytest
import torch

from chance import follows
from engines.test_noise import logits_of, warped
from foredraft.engines import rejection
from foredraft.protocol.anchor import Anchor
from foredraft.protocol.rejection import Proposal, Trial, key_of, propose, trial
from foredraft.protocol.sampling import Sampling

DRAWS = 12_000
CHUNK = 2_000


def trials(proposal: Proposal | None, seed: int) -> list[Trial]:
    return [trial(key_of(seed, Anchor(position, position * 977)), proposal) for position in range(DRAWS)]


def drawn(logits: torch.Tensor, sampling: Sampling, tried: list[Trial]) -> Counter[int]:
    came: Counter[int] = Counter()
    for first in range(0, DRAWS, CHUNK):
        came.update(rejection.said(logits.expand(CHUNK, -1), sampling, tried[first : first + CHUNK]))
    return came


@pytest.mark.parametrize(
    "sampling",
    [Sampling(0.6, 0, 1.0, 1), Sampling(1.0, 0, 1.0, 2), Sampling(1.3, 8, 1.0, 3), Sampling(1.5, 16, 0.95, 4)],
)
@pytest.mark.parametrize("draft", ["alike", "else", "none"])
def test_rows_follow_the_filtered_softmax(sampling: Sampling, draft: str) -> None:
    logits = logits_of(1, 20)
    said = logits[0] + (0.5 if draft == "alike" else 4.0) * logits_of(1, 20, seed=1)[0]
    best = said.softmax(-1).topk(6)
    likeliest = dict(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    proposal = None if draft == "none" else propose(likeliest, sampling)
    came = drawn(logits, sampling, trials(proposal, sampling.seed))
    chances = {token: chance for token, chance in enumerate(warped(logits, sampling)[0].tolist()) if chance}
    assert follows({draft: (came, chances)})


def test_a_large_vocabulary_is_drawn_from_as_well() -> None:
    """By way of the blocks of ``Noise``: 5,000 tokens, of which few are likely."""
    logits = logits_of(1, 5_000) * 2.0
    best = (logits[0] + logits_of(1, 5_000, seed=1)[0]).softmax(-1).topk(8)
    proposal = propose(dict(zip(best.indices.tolist(), best.values.tolist(), strict=True)), Sampling(1.0))
    came = Counter(rejection.said(logits.expand(400, -1), Sampling(1.0), trials(proposal, 5)[:400]))
    assert follows({"all": (came, dict(enumerate(logits[0].double().softmax(-1).tolist())))})


def test_rows_with_and_without_proposals_share_a_pass() -> None:
    logits = logits_of(4, 20)
    proposals = [Proposal((3, 4), (2, 1)), None, Proposal((), ()), Proposal((19,), (7,))]
    tried = [trial(key_of(1, Anchor(9, row)), proposal) for row, proposal in enumerate(proposals)]
    together = rejection.said(logits, Sampling(1.0), tried)
    assert together == [
        rejection.said(logits[row : row + 1], Sampling(1.0), tried[row : row + 1])[0] for row in range(4)
    ]


def test_what_is_forbidden_never_comes_even_if_the_draft_proposes_it() -> None:
    logits = torch.full((1, 20), torch.finfo(torch.float32).min)
    logits[0, [4, 7]] = torch.tensor([0.3, 0.1])
    tried = trials(Proposal((1, 7, 2), (60_000, 50, 3)), 6)
    assert set(drawn(logits, Sampling(0.8), tried)) == {4, 7}
