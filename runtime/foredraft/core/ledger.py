"""The harm ledger: what speculation has cost a session so far, against what it has gained.

Both are counted in seconds of decoding alone. Waiting for the edge is allowed only out of
gains, plus a small share of what decoding alone would have taken: so a session is never much
slower than plain streaming, whatever its policy believes.
"""

from foredraft.core.estimates import Average

SHARE = 0.01


class Ledger:
    """One session's account."""

    def __init__(self) -> None:
        self._alone_s = Average(0.1)
        self._tokens = 0
        self._gained_s = 0.0
        self._spent_s = 0.0

    def book(self, drafted: int, tokens: int, pass_s: float, waited_s: float) -> None:
        """A pass of ``drafted`` nodes brought ``tokens``; the walker had waited before it."""
        if not drafted:
            self._alone_s.take(pass_s)
        alone_s = self._alone_s.mean
        self._tokens += tokens
        if self._alone_s.samples:
            self._gained_s += (tokens - 1) * alone_s
            self._spent_s += waited_s + max(0.0, pass_s - alone_s)

    @property
    def allowance_s(self) -> float:
        """How long the walker may wait now; nothing before it is known what decoding alone takes."""
        share_s = SHARE * self._tokens * self._alone_s.mean
        return max(0.0, share_s + self._gained_s - self._spent_s)
