"""The harm ledger: what speculation has cost a session so far, against what it has gained.

Both are counted in seconds of decoding alone. A cloud that may decode alone waits for the
edge, and verifies anything at all, only out of gains plus a small share of what decoding alone
would have taken: so a session is never much slower than plain streaming, whatever its policy
believes. One pass of each width, or one wait, may overdraw the account; then the cloud decodes
alone until the share has paid for it.

A pass that was slow by chance would have been slow alone as well, and is no fault of speculation:
one that took more than twice what is typical of its width counts as typical; where that is not known yet, as twice
decoding alone.
"""

import math
from collections.abc import Sequence

from foredraft.protocol.averages import ENOUGH, WIDTHS, Average, Typical, width_class

SHARE = 0.01

BY_CHANCE = 2.0
"""A pass that took so many times as long as is typical was slow by chance."""


class Ledger:
    """One session's account. ``passes_s``: what passes take, by WIDTHS, as other sessions have seen it."""

    __slots__ = ("_alone_s", "_opened", "_passes_s", "_speculated", "_spent_s", "_tokens", "_typical_s")

    def __init__(self, passes_s: Sequence[float] = ()) -> None:
        self._opened = False
        self._passes_s = [Typical() for _ in WIDTHS]
        self._typical_s = [*passes_s, *[0.0] * (len(WIDTHS) - len(passes_s))]  # 0: not known yet
        self._alone_s = Average(0.1)
        self._tokens = 0
        self._speculated = 0  # tokens that came of passes with draft nodes
        self._spent_s = 0.0

    def book(self, drafted: int, tokens: int, pass_s: float, waited_s: float) -> None:
        """A pass of ``drafted`` nodes brought ``tokens``; the cloud had waited before it.

        The first pass of a session carries the prompt as well, and tells nothing.
        """
        if not self._opened:
            self._opened = True
            return
        counted_s = self._counted_s(drafted, pass_s)
        self._tokens += tokens
        self._spent_s += waited_s
        if drafted:
            self._speculated += tokens
            self._spent_s += counted_s
        else:
            self._alone_s.take(counted_s)

    def _counted_s(self, drafted: int, pass_s: float) -> float:
        """What a pass counts for."""
        width = width_class(drafted)
        seen = self._passes_s[width]
        seen.take(pass_s)
        if len(seen.last) >= ENOUGH:
            self._typical_s[width] = seen.middle
        if typical_s := self._typical_s[width]:
            return typical_s if pass_s > BY_CHANCE * typical_s else pass_s
        return min(pass_s, BY_CHANCE * self._alone_s.mean) if self._alone_s.samples else pass_s

    @property
    def empty(self) -> bool:
        """Whether it is unknown yet what decoding alone takes: one token must be decoded alone to see."""
        return self._opened and not self._alone_s.samples

    @property
    def balance_s(self) -> float:
        """What may be spent; below 0 when too much was."""
        # A single token alone may have been slow by chance, too: it never takes longer than several do.
        known_s = [typical_s for typical_s in self._typical_s[1:] if typical_s]
        alone_s = min(self._alone_s.mean, BY_CHANCE * min(known_s, default=math.inf))
        return alone_s * (SHARE * self._tokens + self._speculated) - self._spent_s
