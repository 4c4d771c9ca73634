"""Made-up words: what the tokens of a synthetic pair read as, and tokens for whatever text goes in."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import tokenizers
from tokenizers import decoders, models

from foredraft.text.tokenizer import Tokenizer

_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # what Metaspace writes for a space


def word(token: int) -> str:
    """The word of a token: two syllables or more, no two tokens alike."""
    syllables: list[str] = []
    while token or len(syllables) < 2:
        token, digit = divmod(token, len(_SYLLABLES))
        syllables.append(_SYLLABLES[digit])
    return "".join(syllables)


class MadeUpWords(Tokenizer):
    """A tokenizer of ``vocab_size`` words. A text's words are tokens by their hash, so any text will do as a prompt."""

    def __init__(self, vocab_size: int) -> None:
        vocabulary = {_SPACE + word(token): token for token in range(vocab_size)}
        model = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=_SPACE + word(0)))
        model.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="never")
        super().__init__(model.to_str().encode())

    def encode(self, text: str) -> list[int]:
        """A token for each word; the same for the same word."""
        size = self.vocab_size
        return [int.from_bytes(hashlib.sha256(one.encode()).digest()[:8], "big") % size for one in text.split()]

    def decode(self, tokens: Sequence[int]) -> str:
        """The words, each with the space before it."""
        return "".join(f" {word(token)}" for token in tokens)


made_up_words = lru_cache(maxsize=4)(MadeUpWords)  # 0.1 s for 32,000 words; every world of a test suite wants them
