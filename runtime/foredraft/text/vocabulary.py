"""A draft's vocabulary beside the target's tokenizer, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from foredraft.errors import ModelError
from foredraft.text.pieces import pieces
from foredraft.text.tokenizer import Tokenizer

_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id, as model files write them (bytes as letters, ``▁`` for a space); ``words``: which are no marks."""

    tokens: list[str]
    words: frozenset[int]

    def check(self, tokenizer: Tokenizer, draft: str) -> None:
        """Raise ModelError, naming the first differences, unless every token of ``tokenizer`` is the same one here.

        What a file has beyond them is padding, which nobody says. An id that the tokenizer leaves out may be anything.
        """
        differences: list[str] = []
        marks = tokenizer.special_ids()
        for token, text in tokenizer.tokens():
            mine = self.tokens[token] if token < len(self.tokens) else None
            if mine != text:
                differences.append(f"{token} is {text!r}, here {'missing' if mine is None else repr(mine)}")
            elif token in self.words and token in marks:
                differences.append(f"{token}, {text!r}, is a special mark, here a piece of a word")
        _refuse(differences, draft)


def check_pieces(mine: Sequence[bytes], tokenizer: Tokenizer, draft: str) -> None:
    """The same where a draft tells which bytes its tokens stand for; of special marks it may tell none."""
    differences: list[str] = []
    theirs = pieces(tokenizer)
    for token, text in tokenizer.tokens():
        if token >= len(mine):
            differences.append(f"{token} is {text!r}, here missing")
        elif mine[token] not in (theirs[token], text.encode()):
            differences.append(f"{token} is {text!r}, here {mine[token].decode(errors='replace')!r}")
    _refuse(differences, draft)


def _refuse(differences: Sequence[str], draft: str) -> None:
    if differences:
        named = f"{len(differences)} tokens differ: {'; '.join(differences[:_NAMED])}"
        raise ModelError(
            f"the vocabulary of the draft {draft!r} is not the target's: {named}; "
            "use a draft of the same family, or 'ngram'"
        )
