"""What pairs say that are statistics: texts that are drawn, and what the draft and the exits think of them."""

from typing import Protocol

from foredraft.protocol.ports import Guess


class Spoken(Protocol):
    """What a pair says of one text: a function of the position, whatever was asked before."""

    def truth(self, position: int) -> int:
        """The target's token."""

    def rank(self, position: int) -> int:
        """Which of the draft's choices that is, from 0; -1 for none of them."""

    def predict(self, layer: int, position: int) -> tuple[int, float]:
        """What the exit after ``layer`` names, and how sure it is."""

    def guesses(self, position: int, width: int) -> list[Guess]:
        """The draft's first choices."""


class SpokenPair(Protocol):
    """A target and a draft whose texts are drawn."""

    @property
    def layers(self) -> int:
        """The target's."""

    @property
    def vocab_size(self) -> int:
        """Both models'."""

    @property
    def context(self) -> int:
        """The longest text."""

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """After which layers there are exits."""

    def spoken(self, seed: int, start: int) -> Spoken:
        """What is said of the request with this seed; ``start``: how long its prompt is."""
