"""The cloud finds a stop string wherever the tokens split it."""

from hypothesis import given
from hypothesis import strategies as st

from foredraft.core.cloud import StopStrings


class Letters:
    """A detokenizer whose tokens are letters."""

    def step(self, token: int) -> str:
        return chr(token)


@given(text=st.text("ab", max_size=30), strings=st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=3))
def test_a_stop_string_is_found_at_the_token_that_completes_it(text: str, strings: list[str]) -> None:
    search = StopStrings(tuple(strings), Letters())
    for count, letter in enumerate(text, start=1):
        found = search(ord(letter))
        assert found == any(text[:count].endswith(string) for string in strings)
        if found:  # the text ends here
            return
