"""Whose call is first among those of one owner: by when it is wanted, and nobody waits for ever.

Earliest deadline first. A call without a deadline, or with one that is far away, counts as if it were wanted
``PATIENCE_S`` after it came: those with nearer deadlines go before it, but none that comes later than that.
"""

from typing import Final

PATIENCE_S: Final = 1.0


def turn_s(due_s: float, asked_s: float) -> float:
    """What calls are sorted by, the least first, on the loop's clock. Without deadlines: first come, first served."""
    return min(due_s, asked_s + PATIENCE_S)
