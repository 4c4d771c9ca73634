"""The target's memory in blocks: gaps, and texts that share their beginnings."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foredraft.engines.blocks import BLOCK_ROWS, BlockPool, Text
from foredraft.engines.gaps import Gaps
from foredraft.errors import RefusedError


@given(st.randoms(use_true_random=False), st.integers(1, 60))
def test_gaps_hand_out_each_number_once_until_it_is_given_back(luck: random.Random, count: int) -> None:
    gaps, taken = Gaps(count), list[int]()
    for _ in range(40):
        if taken and luck.random() < 0.5:
            gaps.give(taken.pop(luck.randrange(len(taken))))
        elif gaps.free:
            new = gaps.take(luck.randint(1, gaps.free), luck.choice([None, *[number + 1 for number in taken]]))
            assert not set(new) & set(taken)
            taken += new
        assert gaps.free == count - len(taken)
    assert sorted([*taken, *gaps.take(gaps.free)]) == list(range(count))


def test_a_text_grows_in_one_piece_beside_others() -> None:
    pool = BlockPool(400 * BLOCK_ROWS, 8, 1.0)
    texts = [pool.open([seed] * 20) for seed in range(3)]
    for _ in range(4):
        for text in texts:
            text.reserve(text.rows + 1)
    assert all(len(text.runs(text.rows)) == 1 for text in texts)


@settings(max_examples=settings().max_examples // 2)
@given(st.randoms(use_true_random=False))
def test_no_row_of_two_texts_is_the_same_unless_all_before_it_is(luck: random.Random) -> None:
    pool = BlockPool(100 * BLOCK_ROWS, 6, 1.0)
    texts: list[tuple[Text, int]] = []
    for _ in range(30):
        if texts and luck.random() < 0.3:
            pool.close(texts.pop(luck.randrange(len(texts)))[0])
        elif len(texts) < 6:
            owner = luck.randrange(2)
            tokens = [luck.randrange(2)] * luck.randint(1, 40)
            text = pool.open(tokens, str(owner))
            assert len(text.tokens) < len(tokens)
            assert text.tokens == tokens[: len(text.tokens)]
            text.extend(tokens[len(text.tokens) :])
            texts.append((text, owner))
        elif texts:
            text, _ = luck.choice(texts)
            more = [luck.randrange(2)] * luck.randint(1, 20)
            try:
                text.reserve(len(text.tokens) + len(more))
            except RefusedError:
                continue
            text.extend(more)
        for one, owner in texts:
            for other, theirs in texts:
                if one is not other:
                    check(one, other, owner == theirs)


def check(one: Text, other: Text, same_owner: bool) -> None:
    common = 0
    for left, right in zip(one.tokens, other.tokens, strict=False):
        if left != right:
            break
        common += 1
    shared = common // BLOCK_ROWS * BLOCK_ROWS if same_owner else 0
    places = [[text.row(index) for index in range(text.rows)] for text in (one, other)]
    assert places[0][:shared] == places[1][:shared]
    assert not set(places[0][shared:]) & set(places[1][shared:])


def test_what_nobody_holds_any_more_is_forgotten_when_asked() -> None:
    pool = BlockPool(40 * BLOCK_ROWS, 2, 1.0)
    text = pool.open([1] * 40)
    text.extend([1] * 40)
    pool.close(text)
    assert (pool.active, pool.held_rows, pool.idle_rows) == (0, 2 * BLOCK_ROWS, 2 * BLOCK_ROWS)
    pool.clear()
    assert pool.held_rows == 0


def test_a_seat_beyond_the_pool_is_refused_with_the_way_out() -> None:
    pool = BlockPool(2 * BLOCK_ROWS, 2, 1.5)
    with pytest.raises(RefusedError, match=r"33 tokens.*32 tokens.*--cache-gib") as never:
        pool.open([1] * 33)
    assert never.value.retry_after_s is None
    pool.open([1] * 20)
    with pytest.raises(RefusedError, match="fill the cache of 32 tokens") as later:
        pool.open([2] * 20)
    assert later.value.retry_after_s == 1.5
