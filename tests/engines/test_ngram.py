"""The n-gram drafter: it proposes what the text itself has said before, and nothing else."""

import subprocess
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.engines.ngram import NgramDrafter, SuffixIndex
from foredraft.errors import ConfigError
from foredraft.protocol.ports import Drafter, Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree

SAMPLING = Sampling()
TEXTS = st.lists(st.integers(0, 3), max_size=40)


async def begun(tokens: list[int], **options: int | bool) -> tuple[NgramDrafter, DraftTree]:
    drafter = NgramDrafter(**options)  # type: ignore[arg-type]
    await drafter.begin(tokens, SAMPLING)
    return drafter, DraftTree(tokens)


def index_of(tokens: list[int], min_n: int = 1, max_n: int = 4) -> SuffixIndex:
    index = SuffixIndex(min_n, max_n)
    index.begin()
    index.add(tokens)
    return index


async def test_it_is_a_drafter_and_speaks_any_tokenizer() -> None:
    drafter: Drafter = NgramDrafter()
    assert drafter.tokenizer_digest == ""
    assert drafter.max_nodes_per_step >= 8
    await drafter.close()


async def test_it_continues_a_repeated_passage_token_by_token_below_the_root() -> None:
    drafter, tree = await begun([7, 1, 2, 3, 4, 5, 9, 1, 2, 3])
    node = tree.root
    said = []
    for _ in range(3):
        (guesses,) = await drafter.draft([node], 1)
        said.append(guesses[0].token)
        node = tree.add(node, guesses[0].token)
    assert said == [4, 5, 9]


async def test_it_has_no_idea_about_text_without_repetition() -> None:
    drafter, tree = await begun(list(range(30)))
    assert await drafter.draft([tree.root], 4) == [[]]


async def test_a_longer_match_speaks_before_a_shorter_one() -> None:
    # After (1, 2) came 5, once; after a lone 2 came 6, often. The longer tail decides.
    drafter, tree = await begun([1, 2, 5, 0, 2, 6, 0, 2, 6, 0, 2, 6, 0, 1, 2])
    (guesses,) = await drafter.draft([tree.root], 3)
    assert [guess.token for guess in guesses] == [5, 6]
    assert guesses[0].probability > guesses[1].probability


async def test_among_the_followers_the_frequent_come_first_and_then_the_recent() -> None:
    drafter, tree = await begun([1, 5, 1, 6, 1, 7, 1, 6, 1], max_n=1)
    (guesses,) = await drafter.draft([tree.root], 3)
    assert [guess.token for guess in guesses] == [6, 7, 5]


async def test_several_nodes_in_one_step_each_get_their_own_guesses() -> None:
    drafter, tree = await begun([1, 2, 3, 4, 1, 2])
    three, other = tree.add(tree.root, 3), tree.add(tree.root, 9)
    answers = await drafter.draft([tree.root, three, other], 1)
    assert [[guess.token for guess in answer] for answer in answers] == [[3], [4], []]


async def test_a_dead_node_comes_back_empty() -> None:
    drafter, tree = await begun([1, 2, 3, 1, 2])
    node = tree.add(tree.root, 9)
    tree.advance([3])
    drafter.advance([3])
    assert await drafter.draft([node], 2) == [[]]


async def test_committed_tokens_are_learnt_at_once() -> None:
    drafter, tree = await begun([1, 2])
    assert await drafter.draft([tree.root], 1) == [[]]
    drafter.advance([8, 1, 2])
    tree.advance([8, 1, 2])
    (guesses,) = await drafter.draft([tree.root], 1)
    assert guesses[0].token == 8


@pytest.mark.parametrize(("keep", "knows"), [(True, [[3]]), (False, [[]])])
async def test_texts_of_a_session_are_kept_if_so_asked(keep: bool, knows: list[list[int]]) -> None:
    drafter, _ = await begun([1, 2, 3], keep=keep)
    await drafter.begin([9, 1, 2], SAMPLING)
    answers = await drafter.draft([DraftTree([9, 1, 2]).root], 1)
    assert [[guess.token for guess in answer] for answer in answers] == knows


async def test_a_text_that_begins_says_nothing_about_the_end_of_the_one_before() -> None:
    drafter, _ = await begun([1, 2])
    await drafter.begin([5, 2], SAMPLING)
    assert await drafter.draft([DraftTree([5, 2]).root], 1) == [[]]


async def test_a_resumed_text_is_not_counted_twice() -> None:
    drafter, tree = await begun([1, 2, 1, 2, 1])
    once = await drafter.draft([tree.root], 2)
    await drafter.begin([1, 2, 1, 2, 1], SAMPLING)
    assert await drafter.draft([tree.root], 2) == once


async def test_the_index_begins_anew_when_it_has_seen_enough() -> None:
    drafter, tree = await begun([1, 2, 3, 1], max_indexed_tokens=4)
    (guesses,) = await drafter.draft([tree.root], 1)
    assert guesses[0].token == 2
    drafter.advance([4, 5, 6, 1])
    tree.advance([4, 5, 6, 1])
    assert await drafter.draft([tree.root], 1) == [[]]  # the first 1 is forgotten


@given(text=TEXTS, suffix=TEXTS, width=st.integers(1, 5), min_n=st.integers(1, 2))
def test_it_never_proposes_what_did_not_follow_that_suffix(
    text: list[int], suffix: list[int], width: int, min_n: int
) -> None:
    followers = {
        text[i]
        for i in range(min_n, len(text))
        for n in range(min_n, min(4, i, len(suffix)) + 1)
        if text[i - n : i] == suffix[len(suffix) - n :]
    }
    guesses = index_of(text, min_n).guesses(suffix, width)
    tokens = [guess.token for guess in guesses]
    assert set(tokens) <= followers
    assert len(tokens) == min(width, len(followers)) == len(set(tokens))


@given(text=TEXTS, suffix=TEXTS)
def test_probabilities_are_a_part_of_one_and_fall(text: list[int], suffix: list[int]) -> None:
    chances = [guess.probability for guess in index_of(text).guesses(suffix, 99)]
    assert all(0.0 < chance < 1.0 for chance in chances)
    assert sum(chances) < 1.0
    assert chances == sorted(chances, reverse=True)


@given(parts=st.lists(TEXTS, max_size=6), suffix=TEXTS)
def test_growing_part_by_part_equals_building_from_the_whole(parts: list[list[int]], suffix: list[int]) -> None:
    grown = index_of([])
    for part in parts:
        grown.add(part)
    whole = index_of([token for part in parts for token in part])
    assert grown.guesses(suffix, 9) == whole.guesses(suffix, 9)
    assert grown.tail == whole.tail


def test_bad_lengths_are_refused() -> None:
    with pytest.raises(ConfigError, match="min_n <= max_n"):
        NgramDrafter(min_n=3, max_n=2)
    with pytest.raises(ConfigError, match="max_indexed_tokens"):
        NgramDrafter(max_indexed_tokens=0)


def test_it_imports_neither_torch_nor_transformers_nor_numpy() -> None:
    code = (
        "import sys, foredraft.engines.ngram, foredraft.engines.paced\n"
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_guess_is_what_the_ports_say() -> None:
    assert index_of([1, 2, 1]).guesses([1], 1) == [Guess(2, 0.5)]


def test_a_probability_is_what_such_a_suffix_was_worth_so_far() -> None:
    stream = Random(3)
    text: list[int] = []
    for _ in range(400):  # after 1 comes 2 three times out of four, else something new
        text += [1, 2 if stream.random() < 0.75 else stream.randrange(1_000, 1_000_000)]
    (guess, *_) = index_of([*text, 1], max_n=1).guesses([1], 1)
    assert guess.token == 2
    # Known: 3/4 of the time it was a follower seen before; of all that followed, 3/4 were this one.
    assert guess.probability == pytest.approx(0.75 * 0.75, abs=0.06)


async def test_a_text_longer_than_the_index_is_followed_by_its_end() -> None:
    drafter, tree = await begun([1, 2, 3] * 40, max_indexed_tokens=30)
    for token in [1, 2, 3] * 20:
        (guesses,) = await drafter.draft([tree.root], 1)
        assert guesses[0].token == token
        drafter.advance([token])
        tree.advance([token])
