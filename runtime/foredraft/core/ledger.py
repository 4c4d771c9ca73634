"""The harm ledger: what speculation has cost a session so far, against what it has gained.

Both are counted in seconds of decoding alone. A walker that may decode alone waits for the
edge, and verifies anything at all, only out of gains plus a small share of what decoding alone
would have taken: so a session is never much slower than plain streaming, whatever its policy
believes. One pass, or one wait, may overdraw the account; then the walker decodes alone until
the share has paid for it.
"""

from foredraft.core.estimates import Average

SHARE = 0.01


class Ledger:
    """One session's account."""

    def __init__(self) -> None:
        self._opened = False
        self._alone_s = Average(0.1)
        self._tokens = 0
        self._gained_s = 0.0
        self._spent_s = 0.0

    def book(self, drafted: int, tokens: int, pass_s: float, waited_s: float) -> None:
        """A pass of ``drafted`` nodes brought ``tokens``; the walker had waited before it.

        The first pass of a session carries the prompt as well, and tells nothing.
        """
        if not self._opened:
            self._opened = True
            return
        if not drafted:
            self._alone_s.take(pass_s)
        alone_s = self._alone_s.mean
        self._tokens += tokens
        if self._alone_s.samples:
            self._gained_s += (tokens - 1) * alone_s
            self._spent_s += waited_s + (max(0.0, pass_s - alone_s) if drafted else 0.0)

    @property
    def balance_s(self) -> float:
        """What may be spent; below 0 when too much was. 0 while nobody knows what decoding alone takes."""
        return SHARE * self._tokens * self._alone_s.mean + self._gained_s - self._spent_s
