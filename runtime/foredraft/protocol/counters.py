"""What one end counts of all its texts, for metrics and for whoever watches."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class HintCount:
    """Hints of one exit: all, and those that were a prefix of what committed."""

    said: int = 0
    right: int = 0


@dataclass(slots=True)
class Counters:
    """All since the start; ``active`` is now. ``drafts``: passes that had a draft to verify.

    ``accepted_at``: by position in the draft, how often the token there was accepted.
    """

    sessions: int = 0
    active: int = 0
    passes: int = 0
    tokens: int = 0
    drafts: int = 0
    drafted: int = 0
    accepted: int = 0
    refused: int = 0
    pass_s: float = 0.0
    accepted_at: list[int] = field(default_factory=list)
    by_layer: dict[int, HintCount] = field(default_factory=dict)

    @property
    def hints(self) -> int:
        """Of all exits."""
        return sum(count.said for count in self.by_layer.values())

    def passed(self, tokens: int, drafted: int, accepted: int, pass_s: float) -> None:
        """A pass has ended: it committed so many tokens."""
        self.passes += 1
        self.tokens += tokens
        self.drafts += drafted > 0
        self.drafted += drafted
        self.accepted += accepted
        self.pass_s += pass_s
        self.accepted_at += [0] * (accepted - len(self.accepted_at))
        for position in range(accepted):
            self.accepted_at[position] += 1

    def judge(self, layer: int, predicted: Sequence[int], committed: Sequence[int]) -> None:
        """A hint of ``layer``, and what committed at its position."""
        count = self.by_layer.setdefault(layer, HintCount())
        count.said += 1
        count.right += list(committed[: len(predicted)]) == list(predicted)
