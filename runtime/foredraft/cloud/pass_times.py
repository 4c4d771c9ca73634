"""What passes of the target take, by their draft nodes, as the sessions of a service see it.

An edge is told when it connects, so that it need not find out by passes that are wider than pays.
"""

from collections.abc import Sequence

from foredraft.protocol.averages import Typical, rounded, width_class


class PassTimes:
    """The middle of the last few passes of each width. ``card_s``: what is known before the first (``TargetCard``)."""

    def __init__(self, card_s: Sequence[float]) -> None:
        self._seen = [Typical([pass_s] if pass_s else []) for pass_s in card_s]

    def saw(self, drafted: int, pass_s: float) -> None:
        """A pass of so many draft nodes has ended."""
        width = width_class(drafted)
        self._seen += [Typical() for _ in range(len(self._seen), width + 1)]
        self._seen[width].take(pass_s)

    @property
    def typical_s(self) -> tuple[float, ...]:
        """By WIDTHS, to two digits; 0 for those that no pass has had."""
        return tuple(rounded(seen.middle) for seen in self._seen)
