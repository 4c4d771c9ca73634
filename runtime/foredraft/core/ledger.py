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
        self._speculated = 0  # tokens that came of passes with draft nodes
        self._spent_s = 0.0

    def book(self, drafted: int, tokens: int, pass_s: float, waited_s: float) -> None:
        """A pass of ``drafted`` nodes brought ``tokens``; the walker had waited before it.

        The first pass of a session carries the prompt as well, and tells nothing.
        """
        if not self._opened:
            self._opened = True
            return
        self._tokens += tokens
        self._spent_s += waited_s
        if drafted:
            self._speculated += tokens
            self._spent_s += pass_s
        else:
            self._alone_s.take(pass_s)

    @property
    def empty(self) -> bool:
        """Whether it is unknown yet what decoding alone takes: one token must be decoded alone to see."""
        return self._opened and not self._alone_s.samples

    @property
    def balance_s(self) -> float:
        """What may be spent; below 0 when too much was."""
        return self._alone_s.mean * (SHARE * self._tokens + self._speculated) - self._spent_s
