"""Tool calls are taken out of answers, whatever the pieces in which these come."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from foredraft.openai_api.tool_calls import ToolCallReader

CALL = '<tool_call>{"name": "go", "arguments": {"to": "<here>"}}</tool_call>'


def read(pieces: list[str]) -> tuple[str, list[str]]:
    """What is shown, and the names of the calls."""
    reader = ToolCallReader()
    shown = "".join(map(reader.feed, pieces))
    rest, calls = reader.finish()
    return shown + rest, [call["function"]["name"] for call in calls]


def test_a_call_is_not_shown_and_what_is_none_is_left_as_text() -> None:
    assert read(["Well. " + CALL + CALL]) == ("Well. ", ["go", "go"])
    assert read(["a < b and <tool"]) == ("a < b and <tool", [])
    assert read(["<tool_call>no json</tool_call> after"]) == ("<tool_call>no json</tool_call> after", [])
    assert read(["<tool_call>[1]</tool_call>"]) == ("<tool_call>[1]</tool_call>", [])
    assert read(['<tool_call>{"name": "cut'])[1] == []
    assert read(["<tool_call>", "[" * 5_000, "</tool_call>"])[1] == []


@given(st.text(alphabet="<tolca_>/{ x", max_size=30), st.lists(st.integers(0, 200), max_size=20))
def test_how_the_answer_is_cut_into_pieces_changes_nothing(text: str, cuts: list[int]) -> None:
    whole = text + CALL
    places = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    pieces = [whole[begin:end] for begin, end in pairwise(places)]
    assert read(pieces) == read([whole])
