"""Which rule of acceptance a text has: what its user wants, or the one that has brought more so far."""

from typing import Final

from foredraft.edge.session_report import SessionReport
from foredraft.errors import ConfigError
from foredraft.protocol.sampling import NOISE, REJECTION

AUTO: Final = "auto"
ACCEPTANCES: Final = (NOISE, REJECTION, AUTO)
ENOUGH: Final = 200
"""Passes of each rule before they are compared; from twice as many on, those of before count half."""


def check_acceptance(acceptance: str) -> None:
    """Raise ConfigError for what is none."""
    if acceptance not in ACCEPTANCES:
        raise ConfigError(f"acceptance must be one of {', '.join(ACCEPTANCES)}, not {acceptance!r}")


class Rules:
    """What texts of one edge have had of each rule: passes with drafts in them, and their tokens."""

    def __init__(self) -> None:
        self._seen = {NOISE: (0.0, 0.0), REJECTION: (0.0, 0.0)}

    def saw(self, report: SessionReport) -> None:
        """A text has ended. At temperature 0, and where nothing was drafted, it tells nothing of the rules."""
        if report.temperature == 0.0 or not report.drafted:
            return
        passes, tokens = self._seen[report.acceptance]
        if passes >= 2 * ENOUGH:
            passes, tokens = passes / 2, tokens / 2
        self._seen[report.acceptance] = passes + report.passes, tokens + report.new_tokens

    def choose(self, acceptance: str, *, recorded: bool) -> str:
        """The rule of the next text. By ``auto`` both have their turns first, and then the better one has.

        Raises ConfigError for what is no rule, and for a text that is to be recorded by rejection sampling.
        """
        check_acceptance(acceptance)
        if recorded and acceptance == REJECTION:
            raise ConfigError("a text by rejection sampling cannot be recorded: another draft would have made another")
        if acceptance != AUTO:
            return acceptance
        (passes, tokens), (other_passes, other_tokens) = self._seen[NOISE], self._seen[REJECTION]
        if recorded or passes < min(ENOUGH, other_passes + 1):
            return NOISE
        if other_passes < ENOUGH:
            return REJECTION
        return REJECTION if other_tokens * passes > tokens * other_passes else NOISE
