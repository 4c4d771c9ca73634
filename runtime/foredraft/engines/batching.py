"""What runs together when the device becomes free: a pure function, for real devices and emulated ones.

All that waits and is short runs at once: passes, lone tokens, short prompts. Nobody waits for a batch to
fill. Of long trunks (prompts) at most one chunk in all comes along, in the order in which they are given, so a long
prompt delays others by no more than that, and others do not hold it up (chunked prefill, as in Sarathi-Serve,
Agrawal et al. 2024).
"""

from collections.abc import Sequence
from typing import NamedTuple

SHORT_ROWS = 64
"""A trunk up to this long is not cut, unless a chunk is shorter still."""


class Waiting(NamedTuple):
    """A call that waits. ``trunk``: committed tokens to run; ``tree``: draft nodes, which run with the last of them.

    ``tip``: whether somebody waits for what the last of the trunk says, so that it needs its turn in any case.
    ``owner``: whose call it is (``shares``).
    """

    trunk: int
    tree: int = 0
    tip: bool = True
    owner: str = ""

    @property
    def rows(self) -> int:
        """All of it."""
        return self.trunk + self.tree


class Share(NamedTuple):
    """What of a call runs now: ``trunk`` tokens of it, and the tree where that is all."""

    call: int
    trunk: int
    whole: bool


def choose(waiting: Sequence[Waiting], chunk: int) -> list[Share]:
    """Which of the calls, in their order, run in the next forward. Never empty where something waits."""
    shares: list[Share] = []
    left = chunk
    for number, call in enumerate(waiting):
        if call.trunk <= min(SHORT_ROWS, chunk):
            shares.append(Share(number, call.trunk, whole=True))
        elif left > 0:
            part = min(call.trunk, left)
            if call.tip and part == call.trunk and part + call.tree > left:
                part -= 1  # the tip waits for its tree
            shares.append(Share(number, part, whole=part == call.trunk))
            left -= part
    return shares
