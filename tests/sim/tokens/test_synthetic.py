"""The synthetic pair: what its engines say is what the pair's statistics draw, in whatever order they are asked."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from foredraft.protocol.ports import Pass
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree
from foredraft_sim.tokens.synthetic import SyntheticDrafter, SyntheticPair, SyntheticTarget

PAIR = SyntheticPair(ranks=(0.6, 0.2, 0.1), ranks_from=((40, (0.1, 0.0, 0.8)),), vocab_size=1000)


@given(st.integers(0, 1 << 32), st.lists(st.integers(1, 90), min_size=1, max_size=30))
def test_a_draft_guesses_what_the_pair_would_choose_there(seed: int, positions: list[int]) -> None:
    async def main() -> None:
        drafter = SyntheticDrafter(PAIR)
        await drafter.begin([0], Sampling(seed=seed))
        for position in positions:
            (guesses,) = await drafter.draft([DraftTree([0] * position).root], 3)
            choices = [PAIR.choice(seed, position, rank) for rank in range(3) if PAIR.ranks_at(position)[rank]]
            assert [guess.token for guess in guesses] == choices

    asyncio.run(main())


@given(st.integers(0, 1 << 32), st.lists(st.integers(1, 90), min_size=1, max_size=30))
def test_a_target_says_the_truth_of_the_pair(seed: int, positions: list[int]) -> None:
    async def main() -> None:
        target = SyntheticTarget(PAIR)
        slots = [await target.slot([0], Sampling(seed=seed)) for _ in positions]  # all share what is drawn
        for position, slot in zip(positions, slots, strict=True):
            verdict = await slot.verify(Pass((0,) * position, (0, 0), (-1, 0)), lambda prediction: None)
            assert list(verdict.prediction.tokens) == [PAIR.truth(seed, position + ahead) for ahead in range(3)]

    asyncio.run(main())
