"""How a text ends after its deadline, without the cloud: closed under its grammar, or by the draft."""

import json
from collections.abc import Callable, Sequence

import pytest

from api.clouds import TOKENIZER
from foredraft.edge.deadline import DEADLINE, LOCAL, STOP
from foredraft.edge.ending import BY_DRAFT, BY_DRAFT_LENGTH, CLOSED, OPEN, Ending
from foredraft.engines.constrained_draft import ConstrainedDrafter
from foredraft.engines.scripted import ScriptedDrafter
from foredraft.errors import GrammarError
from foredraft.protocol.ports import Drafter, Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node
from foredraft.text.constraint import Constraint, constraint_of
from foredraft.text.grammar import Grammar, Grammars

END = 256
PROMPT = TOKENIZER.encode("go: ")
START = len(PROMPT)
GRAMMARS = Grammars(TOKENIZER.json, TOKENIZER.vocab_size, [END])
SCHEMA = {"type": "object", "properties": {"goal": {"type": "string"}}, "required": ["goal"]}


def saying(text: str, ended: bool = True) -> ScriptedDrafter:
    """A drafter that says the text and the end mark after it, or knows nothing more."""
    tokens = [*PROMPT, *TOKENIZER.encode(text), *([END] if ended else [])]
    return ScriptedDrafter(lambda position, _: [Guess(tokens[position], 0.9)] if position < len(tokens) else [])


def grammar_of(**rule: object) -> Callable[[], Grammar]:
    constraint = constraint_of(**rule)  # type: ignore[arg-type]
    assert constraint is not None
    held: Constraint = constraint
    return lambda: GRAMMARS.begin(held)


async def end(
    committed: str, then: str, drafter: Drafter, *, most: int = 64, begin: Callable[[], Grammar] | None = None
) -> tuple[str, str]:
    """What follows the committed text, and why it ends there."""
    held = begin is not None
    ending = Ending(then, drafter, Sampling(), lambda: (START, START + most), [END], held=held, begin_grammar=begin)
    tokens = [token async for token in ending.follow([*PROMPT, *TOKENIZER.encode(committed)])]
    assert tokens == ending.tokens
    return TOKENIZER.decode(tokens), ending.reason


async def test_a_text_that_nothing_holds_stops_as_it_is() -> None:
    assert await end("left t", STOP, saying("left turn")) == ("", DEADLINE)


async def test_a_text_under_a_grammar_stops_with_the_shortest_ending() -> None:
    more, reason = await end('{"goal": "the r', STOP, saying(""), begin=grammar_of(json_schema=SCHEMA))
    assert reason == CLOSED
    assert json.loads('{"goal": "the r' + more) == {"goal": "the r"}


async def test_where_no_short_ending_is_found_the_reason_says_so() -> None:
    assert await end("ab", STOP, saying(""), begin=grammar_of(regex="[a-z]{5000}")) == ("", OPEN)
    assert await end('{"goal": "', STOP, saying(""), most=11, begin=grammar_of(json_schema=SCHEMA)) == ("", OPEN)


async def test_the_draft_goes_on_to_its_end_mark_or_as_far_as_the_text_may_go() -> None:
    assert await end("left t", LOCAL, saying("left turn")) == ("urn", BY_DRAFT)
    assert await end("left t", LOCAL, saying("left turn"), most=8) == ("ur", BY_DRAFT_LENGTH)
    assert await end("left t", LOCAL, saying("left turn"), most=6) == ("", BY_DRAFT_LENGTH)


async def test_a_draft_that_has_no_more_ideas_or_fails_ends_the_text_where_it_is() -> None:
    class Broken(ScriptedDrafter):
        async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
            raise RuntimeError("out of memory")

    assert await end("left t", LOCAL, saying("left tu", ended=False)) == ("u", DEADLINE)
    assert await end("left t", LOCAL, Broken(lambda position, width: [])) == ("", DEADLINE)


async def test_the_draft_stays_under_the_grammar() -> None:
    begin = grammar_of(regex="(left|right) [0-9]+ cm")
    drafter = ConstrainedDrafter(saying("left 12 miles"), begin, lambda: START)
    more, reason = await end("left 1", LOCAL, drafter, begin=begin)
    assert (more, reason) == ("2 cm", BY_DRAFT)


async def test_a_draft_that_does_not_come_to_an_end_leaves_room_for_the_shortest_one() -> None:
    begin = grammar_of(json_schema=SCHEMA)
    drafter = ConstrainedDrafter(saying('{"goal": "' + "0" * 500), begin, lambda: START)
    more, reason = await end('{"goal": "', LOCAL, drafter, most=100, begin=begin)
    assert reason == CLOSED
    assert set(json.loads('{"goal": "' + more)["goal"]) == {"0"}
    assert 80 < len('{"goal": "' + more) <= 100


async def test_where_the_draft_leaves_the_grammar_the_shortest_ending_takes_over() -> None:
    begin = grammar_of(regex="(left|right) [0-9]+ cm")
    assert await end("left 1", LOCAL, saying("left 12 miles"), begin=begin) == ("2 cm", CLOSED)


async def test_without_the_grammar_at_hand_a_text_that_is_held_to_one_is_left_as_it_is() -> None:
    def wrong() -> Grammar:
        raise GrammarError("nothing meets it")

    assert await end("left 1", LOCAL, saying("left 12 cm"), begin=wrong) == ("", OPEN)
    ending = Ending(LOCAL, saying("left 12 cm"), Sampling(), lambda: (START, START + 64), [END], held=True)
    assert [token async for token in ending.follow(PROMPT)] == []
    assert ending.reason == OPEN


@pytest.mark.parametrize("then", [STOP, LOCAL])
async def test_a_committed_text_that_is_whole_stays_what_it_is(then: str) -> None:
    begin = grammar_of(regex="left [0-9] cm")
    drafter = ConstrainedDrafter(saying("left 1 cm"), begin, lambda: START)
    more, reason = await end("left 1 cm", then, drafter, begin=begin)
    assert more == ""
    assert reason in (CLOSED, BY_DRAFT)
