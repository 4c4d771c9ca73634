"""What the models of a world write: text that depends on the model, the seed and every token before.

So a text that was begun by another model, or resumed with anything but what was shown, goes on differently at once.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from foredraft_sim.streams import key

VOCABULARY: Final = 500
STOP_TOKENS: Final = tuple(range(3, VOCABULARY, 31))
"""The end marks of all models."""

_MASK: Final = (1 << 64) - 1
_STEP: Final = 0xD1342543DE82EF95  # a multiplier of Steele and Vigna, "Computationally easy ... LCGs", 2021


class Author(NamedTuple):
    """One text's: ``model`` is who serves it, ``seed`` the request's. A state stands for all tokens so far."""

    model: str
    seed: int

    def state_of(self, tokens: Sequence[int]) -> int:
        """The state after a text."""
        state = key(self.seed, self.model)
        for token in tokens:
            state = after(state, token)
        return state

    def text(self, prompt: Sequence[int], count: int) -> list[int]:
        """The next ``count`` tokens."""
        state, text = self.state_of(prompt), []
        for _ in range(count):
            text.append(token_at(state))
            state = after(state, text[-1])
        return text


def after(state: int, token: int) -> int:
    """The state with one more token."""
    mixed = ((state ^ (token + 1)) * _STEP + 1) & _MASK
    return mixed ^ mixed >> 32


def token_at(state: int) -> int:
    """The token that comes next."""
    return (state * _STEP & _MASK) % VOCABULARY


def luck_at(state: int, what: int) -> float:
    """A number in [0, 1) that depends on the state and on what it is for."""
    return (after(after(state, what), what) >> 11) * 2.0**-53
