"""A draft's vocabulary beside the target's tokenizer: every token is the same one, or it is said which is not."""

import pytest

from foredraft.errors import ModelError
from foredraft.text.vocabulary import Vocabulary
from tokens_of import word_tokenizer

TOKENS = ["<s>", "</s>", "one", "two", "three"]
WORDS = frozenset({2, 3, 4})


def test_the_same_tokens_pass_and_so_does_padding_beyond_them() -> None:
    Vocabulary(TOKENS, WORDS).check(word_tokenizer(TOKENS), "draft")
    Vocabulary([*TOKENS, "[PAD5]", "[PAD6]"], WORDS).check(word_tokenizer(TOKENS), "draft")


@pytest.mark.parametrize(
    ("tokens", "words", "said"),
    [
        (["<s>", "</s>", "one", "zwei", "three"], WORDS, r"'draft'.*1 tokens differ: 3 is 'two', here 'zwei'; use"),
        (TOKENS[:4], WORDS, r"4 is 'three', here missing"),
        (["<s>", "</s>", "two", "one", "three"], WORDS, r"2 tokens differ: 2 is 'one', here 'two'; 3 is 'two'"),
        (TOKENS, WORDS | {1}, r"1, '</s>', is a special mark, here a piece of a word"),
    ],
)
def test_what_differs_is_named(tokens: list[str], words: frozenset[int], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        Vocabulary(tokens, words).check(word_tokenizer(TOKENS), "draft")
