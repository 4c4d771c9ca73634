"""What a constraint allows, token by token, at the end of a text and below the nodes of a tree."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.demo_models import bundled_pair
from foredraft.errors import ConfigError, GrammarError, UnknownNameError
from foredraft.text.constraint import MAX_RULE_CHARACTERS, Constraint, constraint_of
from foredraft.text.grammar import Grammar, Grammars, allows, only
from foredraft.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_folder(bundled_pair().target)
END = 1
VOCABULARY = TOKENIZER.vocab_size
GRAMMARS = Grammars(TOKENIZER.json, VOCABULARY, [END])
COMMAND = {
    "type": "object",
    "properties": {"goal": {"enum": ["chair", "box"]}, "speed": {"type": "number", "minimum": 0, "maximum": 2}},
    "required": ["goal", "speed"],
    "additionalProperties": False,
}


def begin(**rule: Any) -> Grammar:
    constraint = constraint_of(**rule)
    assert constraint is not None
    return GRAMMARS.begin(constraint)


def allowed(mask: bytes) -> list[int]:
    return [token for token in range(VOCABULARY) if allows(mask, token)]


def written(grammar: Grammar, luck: Any, most: int = 200) -> list[int]:
    """A text of random allowed tokens, what is forced among them."""
    text = grammar.follow((), most)
    while not grammar.complete and len(text) < most:
        [mask] = grammar.masks((), ())
        token = luck.choice(allowed(mask))
        text += [token, *grammar.follow([token], most - len(text) - 1)]
    return text


@given(luck=st.randoms(use_true_random=False))
def test_whatever_is_chosen_among_allowed_tokens_the_text_is_of_the_expression(luck: Any) -> None:
    grammar = begin(regex=r"(left|right|stop) [0-9]{1,3} cm")
    text = TOKENIZER.decode(written(grammar, luck))
    assert grammar.complete
    assert re.fullmatch(r"(left|right|stop) [0-9]{1,3} cm", text)


@given(luck=st.randoms(use_true_random=False))
def test_whatever_is_chosen_the_text_is_json_of_the_schema(luck: Any) -> None:
    grammar = begin(json_schema=COMMAND)
    tokens = written(grammar, luck, 400)
    if grammar.complete:
        said = json.loads(TOKENIZER.decode(tokens))
        assert set(said) == {"goal", "speed"}
        assert said["goal"] in ("chair", "box")
        assert 0 <= said["speed"] <= 2


@given(luck=st.randoms(use_true_random=False))
def test_the_masks_of_a_tree_are_those_of_its_paths_one_by_one(luck: Any) -> None:
    def new(path: Sequence[int]) -> Grammar:
        grammar = begin(grammar='start: ("go" | "turn") (" " /[a-z]+/)* "."')
        grammar.follow(path)
        return grammar

    grammar, tokens, parents = new([]), list[int](), list[int]()
    for node in range(luck.randint(1, 12)):
        parents.append(luck.randint(-1, node - 1))
        path = path_of(tokens, parents, parents[-1])
        try:
            [mask] = new(path).masks((), ())
            tokens.append(luck.choice(allowed(mask)) if luck.random() < 0.8 else luck.randrange(VOCABULARY))
        except GrammarError:  # below a forbidden node
            tokens.append(luck.randrange(VOCABULARY))
    masks = grammar.masks(tokens, parents)
    assert len(masks) == len(tokens) + 1
    for node in range(-1, len(tokens)):
        path = path_of(tokens, parents, node)
        try:
            alone = new(path)
        except GrammarError:
            continue
        if END not in path:
            assert masks[node + 1] == alone.masks((), ())[0]
    assert masks[0] == grammar.masks((), ())[0], "the grammar itself has not moved"


def path_of(tokens: Sequence[int], parents: Sequence[int], node: int) -> list[int]:
    path = []
    while node >= 0:
        path.append(tokens[node])
        node = parents[node]
    return path[::-1]


def test_what_is_forced_is_said_at_once_and_the_end_mark_ends_it() -> None:
    grammar = begin(regex="forward march")
    tokens = grammar.follow((), 50)
    assert TOKENIZER.decode(tokens) == "forward march"
    assert tokens[-1] == END
    assert grammar.complete
    assert grammar.follow((), 50) == []


def test_no_more_is_forced_than_there_is_room_for() -> None:
    grammar = begin(regex="a{3000}")
    first = grammar.follow((), 3)
    assert len(first) == 3
    assert not grammar.complete
    assert len(grammar.follow((), 4)) == 4


def test_a_choice_is_forced_only_once_it_is_made() -> None:
    grammar = begin(regex="(yes|no)")
    assert grammar.follow((), 50) == []
    [mask] = grammar.masks((), ())
    assert only(mask) is None
    [no] = [token for token in allowed(mask) if TOKENIZER.decode([token]) == "no"]
    assert grammar.follow([no], 50) == [END]


def test_a_token_that_is_forbidden_is_an_error_by_name() -> None:
    [wrong] = TOKENIZER.encode("def")[:1]
    with pytest.raises(GrammarError, match=f"token {wrong} is not what the grammar allows"):
        begin(regex="[0-9]+").follow([wrong])


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"json_schema": "{"}, "no JSON"),
        ({"json_schema": "[1]"}, "a schema is an object"),
        ({"json_schema": {"type": "nonsense"}}, "cannot be followed"),
        ({"json_schema": {"allOf": [{"type": "string"}, {"type": "number"}]}}, "cannot be followed"),
        ({"json_schema": {"$ref": "#/$defs/none"}}, "cannot be followed"),
        ({"regex": "("}, "cannot be followed"),
        ({"grammar": "start: other"}, "cannot be followed"),
    ],
)
def test_a_rule_that_is_wrong_or_that_nothing_meets_is_refused_with_the_reason(rule: Any, said: str) -> None:
    with pytest.raises(GrammarError, match=said):
        begin(**rule)


def test_an_expression_that_explodes_on_the_way_ends_its_text_with_the_reason() -> None:
    grammar, letters = begin(regex="(((((a{1,999}){1,999}){1,999}){1,999}){1,999})"), TOKENIZER.encode("a" * 30)
    with pytest.raises(GrammarError, match="the grammar gave up: lexer error: too many"):
        grammar.masks(letters, range(-1, len(letters) - 1))


def test_json_is_written_as_json_dumps_does_unless_the_schema_says_otherwise() -> None:
    assert TOKENIZER.decode(begin(json_schema=COMMAND).follow((), 50)) == '{"goal": "'
    free = COMMAND | {"x-guidance": {"whitespace_flexible": True}}
    assert TOKENIZER.decode(begin(json_schema=free).follow((), 50)) == "{"


def test_a_schema_that_calls_itself_is_followed() -> None:
    tree = {"type": "object", "properties": {"more": {"$ref": "#"}}, "additionalProperties": False}
    text = TOKENIZER.encode('{"more": {"more": {}}}')
    grammar = begin(json_schema=tree)
    grammar.follow(text)
    assert grammar.follow((), 5) == [END]


def test_llama_cpps_own_grammars_are_understood() -> None:
    grammar = begin(grammar='root ::= "go " ("left" | "right")')
    assert TOKENIZER.decode(grammar.follow((), 50)).startswith("go")


class Command(msgspec.Struct):
    goal: str


@dataclass
class Plain:
    goal: str


class Pydantic:
    """What pydantic's models have."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {"type": "object", "properties": {"goal": {"type": "string"}}}


@pytest.mark.parametrize("kind", [Command, Plain, Pydantic])
def test_a_type_is_as_good_as_its_schema(kind: type) -> None:
    constraint = constraint_of(json_schema=kind)
    assert constraint is not None
    assert '"goal"' in constraint.rule
    assert not GRAMMARS.begin(constraint).complete


def test_what_is_no_constraint_is_refused_by_name() -> None:
    assert constraint_of() is None
    with pytest.raises(ConfigError, match="regex and grammar were given"):
        constraint_of(regex="a", grammar="start: A")
    with pytest.raises(ConfigError, match=f"1 to {MAX_RULE_CHARACTERS} characters"):
        Constraint("regex", "a" * (MAX_RULE_CHARACTERS + 1))
    with pytest.raises(UnknownNameError, match="did you mean 'regex'"):
        Constraint("regexp", "a")
    with pytest.raises(ConfigError, match="no JSON schema can be made of"):
        constraint_of(json_schema=object)
