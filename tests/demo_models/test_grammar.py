"""What the corpus's style rules out, and that the corpus itself keeps to it."""

import pytest

from foredraft.demo_models.corpus import normalise
from foredraft.demo_models.grammar import Grammar, State, advance, token_texts
from foredraft.demo_models.judge import reads_as_python
from foredraft.demo_models.tokenizer import BOS, EOS, learn_tokenizer

SOURCE = """
class Robot:
    def __init__(self, name, legs=(), *, fast=False):
        if legs[0:2]:
            self.legs = {'left': 1, 'right': [2, 3]}
        else:
            raise ValueError(f"no {name!r} (at all)")
        for leg in legs:
            while leg:
                leg = leg.next

def main():
    return Robot('', [])
"""


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("f(a", "\n"),
        ("f(a", "]"),
        ("f(a)", ")"),
        ("x = 'a", "\n"),
        ("x = 'a", "("),
        ("x = ''", "'"),
        ("if x:", "\ny"),
        ("if x:", "\n\n"),
        ("x = 1", "\n    y"),
        ("if x:\n    y", "\n  z"),
        ("if x:\n    y", "\n        z"),
    ],
)
def test_what_breaks_the_style_is_ruled_out(text: str, then: str) -> None:
    state = advance(State(), text)
    assert state is not None
    assert advance(state, then) is None


def test_normalised_text_keeps_to_the_style() -> None:
    text = normalise(SOURCE)
    assert reads_as_python(text)
    assert advance(State(), text) is not None


def test_every_line_end_may_be_followed_by_any_outer_dent() -> None:
    state = advance(State(), "if x:\n    if y:\n        z")
    for dent in (0, 4, 8):
        assert advance(state, "\n" + " " * dent + "w") is not None


def test_tokens_are_ruled_out_after_what_they_follow() -> None:
    text = normalise(SOURCE)
    tokenizer = learn_tokenizer([text], 300)
    texts = token_texts(tokenizer)
    grammar = Grammar(texts)
    rows = tokenizer.encode(f"{BOS}{text}{EOS}").ids
    numbers = grammar.number(rows)
    ruled_out = grammar.ruled_out()
    assert not any(ruled_out[before, token] for before, token in zip(numbers, rows[1:], strict=False))
    behind_bracket = next(i for i, token in enumerate(rows) if texts[token] == "(")
    newline = next(i for i, text in enumerate(texts) if text.startswith("\n"))
    assert ruled_out[numbers[behind_bracket], newline]
    assert ruled_out[:, texts.index("?")].all(), "a sign that the corpus has nowhere"
