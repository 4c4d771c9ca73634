"""Which tokens the corpus's style of Python rules out after which text: brackets, strings and dents.

A model of a million parameters writes plausible names long before it counts brackets, because a bracket left open
costs it next to nothing: it is one token in a thousand. The log likelihood of a token splits into the probability
that *some* permitted token comes, and the probability of this one among the permitted. The target's training weighs
the first part more (`losses.py`); Welleck et al., "Neural Text Generation with Unlikelihood Training" (2020), is the
same thought. Nothing of this is used when text is written: the finished model is an ordinary one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

CLOSED_BY = {"(": ")", "[": "]", "{": "}"}
DENT = 4
"""Spaces per level, as `ast.unparse` writes them."""


class State(NamedTuple):
    """What a text leaves open: all that decides which token may follow."""

    open: str = ""
    """The brackets that are open, outermost first."""
    quoted: bool = False
    last: str = "\n"
    """The newest sign, where it matters: a quote, a colon, or a newline with nothing but spaces behind it."""
    spaces: int = 0
    """How many spaces the line begins with."""
    least: int = 0
    """The fewest spaces that this line may begin with."""
    most: int = 0
    """The most of them."""


def advance(state: State | None, text: str) -> State | None:
    """The state after one more token's text; None where the style rules it out (and after None)."""
    for sign in text:
        if state is None:
            return None
        state = _after(state, sign)
    return state


def _after(state: State, sign: str) -> State | None:
    if state.quoted:
        if sign == "'":
            return state._replace(quoted=False, last="'")
        return state if sign.isalnum() or sign in " _" else None
    if sign == "\n":
        return _new_line(state)
    if state.last == "\n":
        if sign == " ":
            return state._replace(spaces=state.spaces + 1) if state.spaces < state.most else None
        if state.spaces % DENT or state.spaces < state.least:
            return None
    if sign == "'":
        return None if state.last == "'" else state._replace(quoted=True, last="")
    if sign in CLOSED_BY:
        return state._replace(open=state.open + sign, last="")
    if sign in CLOSED_BY.values():
        fits = state.open and CLOSED_BY[state.open[-1]] == sign
        return state._replace(open=state.open[:-1], last="") if fits else None
    return state._replace(last=":" if sign == ":" else "")


def _new_line(state: State) -> State | None:
    if state.open or state.last == "\n":
        return None
    if state.last == ":":
        return State(least=state.spaces + DENT, most=state.spaces + DENT)
    return State(most=state.spaces)


class Grammar:
    """The states of a corpus, numbered, and for each the tokens that it rules out."""

    def __init__(self, texts: Sequence[str]) -> None:
        """`texts`: what each token of the vocabulary stands for; those that are "" begin a new file."""
        self._texts = texts
        self._seen: set[int] = set()
        self._numbers: dict[State | None, int] = {}
        self._moves: dict[tuple[int, int], int] = {}
        self._states: list[State | None] = []

    def number(self, tokens: Iterable[int]) -> list[int]:
        """The state's number after each token."""
        numbers = []
        now = self._number(State())
        for token in tokens:
            self._seen.add(token)
            move = (now, token)
            if move not in self._moves:
                text = self._texts[token]
                self._moves[move] = self._number(advance(self._states[now], text) if text else State())
            now = self._moves[move]
            numbers.append(now)
        return numbers

    def _number(self, state: State | None) -> int:
        if state not in self._numbers:
            self._numbers[state] = len(self._states)
            self._states.append(state)
        return self._numbers[state]

    def ruled_out(self) -> Tensor:
        """Which tokens may not follow, bool (states, vocabulary): those that break the style, and those never seen.

        Where a text itself broke the style, only the latter.
        """
        strange = [text != "" and token not in self._seen for token, text in enumerate(self._texts)]
        rows = [
            [
                odd or (state is not None and advance(state, text) is None)
                for odd, text in zip(strange, self._texts, strict=True)
            ]
            for state in self._states
        ]
        return torch.tensor(rows)


def token_texts(tokenizer: Tokenizer) -> list[str]:
    """What each token of the vocabulary stands for; "" for the marks of a file's start and end."""
    return [tokenizer.decode([token]) for token in range(tokenizer.get_vocab_size())]
