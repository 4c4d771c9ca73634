"""The shortest way to end a text under its grammar."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.text.constraint import constraint_of
from foredraft.text.grammar import Grammar
from text.test_grammar import COMMAND, GRAMMARS, TOKENIZER

MOST = 256


def after(text: str, **rule: Any) -> Grammar:
    constraint = constraint_of(**rule)
    assert constraint is not None
    grammar = GRAMMARS.begin(constraint)
    grammar.follow(TOKENIZER.encode_rendered(text))
    return grammar


def ended(text: str, **rule: Any) -> str:
    """The text with its shortest ending, which the grammar itself takes."""
    grammar = after(text, **rule)
    found = grammar.ending(MOST)
    assert found is not None
    grammar.follow(found)
    assert grammar.whole
    return TOKENIZER.decode([*TOKENIZER.encode_rendered(text), *found])


NOTE = {
    "type": "object",
    "properties": {"goal": {"type": "string"}, "at": {"type": "array", "items": {"type": "integer"}, "minItems": 2}},
    "required": ["goal", "at"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("rule", "text", "whole"),
    [
        ({"regex": r"(left|right|stop) [0-9]{1,3} cm"}, "left 1", "left 1 cm"),
        ({"regex": r"[a-z]+@[a-z]+\.(com|org)"}, "abc", "abc@a.com"),
        ({"json_schema": NOTE}, '{"goal": "the red cha', '{"goal": "the red cha", "at": [0, 0]}'),
        ({"json_schema": NOTE}, '{"goal": "x", "at": [3, 12', '{"goal": "x", "at": [3, 12]}'),
        ({"json_schema": COMMAND}, '{"goal": "', '{"goal": "box", "speed": 0}'),
        ({"json_schema": {}}, '{"a": [1, {"b": [', '{"a": [1, {"b": []}]}'),
        ({"grammar": 'start: "(" start ")" | "x"'}, "((((((((((((((((", "(" * 16 + "x" + ")" * 16),
    ],
)
def test_a_text_that_was_cut_off_is_closed_with_what_is_missing_and_no_more(
    rule: dict[str, Any], text: str, whole: str
) -> None:
    assert ended(text, **rule) == whole


LETTERS = st.characters(categories=("L", "N", "P", "S", "Zs"))


@given(
    goal=st.text(LETTERS, max_size=12),
    at=st.lists(st.integers(), min_size=2, max_size=4),
    share=st.floats(0.0, 1.0),
)
def test_wherever_json_of_a_schema_is_cut_it_is_json_of_the_schema_after_its_ending(
    goal: str, at: list[int], share: float
) -> None:
    tokens = TOKENIZER.encode_rendered(json.dumps({"goal": goal, "at": at}, ensure_ascii=False))
    constraint = constraint_of(json_schema=NOTE)
    assert constraint is not None
    grammar, cut = GRAMMARS.begin(constraint), tokens[: int(share * len(tokens))]
    grammar.follow(cut)
    found = grammar.ending(MOST)
    assert found is not None
    whole = json.loads(TOKENIZER.decode([*cut, *found]))
    assert set(whole) == {"goal", "at"}
    assert len(whole["at"]) >= 2


def test_a_text_that_is_whole_needs_no_ending() -> None:
    assert after("stop 7 cm", regex=r"stop [0-9] cm").ending(0) == []
    assert after("stop 7", regex=r"stop [0-9]+").ending(MOST) == []


def test_what_takes_more_tokens_than_there_is_room_for_is_not_found() -> None:
    far = after("", regex=r"[a-z]{300}")
    assert far.ending(MOST) is None
    near = after("stop 7", regex=r"stop [0-9] cm")
    assert near.ending(1) is None


def test_looking_for_an_ending_leaves_the_text_where_it_was() -> None:
    grammar = after('{"goal": "b', json_schema=NOTE)
    before = grammar.masks((), ())
    first = grammar.ending(MOST)
    assert grammar.ending(MOST) == first
    assert grammar.masks((), ()) == before
    grammar.follow(TOKENIZER.encode_rendered('ox"'))
