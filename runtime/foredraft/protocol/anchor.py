"""Anchors: names for prefixes of the text, small enough to send with every message.

An anchor says how many tokens a prefix has and gives a 64-bit rolling hash of them. Two ends
that hold the same text compute the same anchor; a collision costs a wasted pass and never a
wrong token, because only the target's own tokens are ever committed.
"""

from collections.abc import Iterable

import msgspec

_MASK = (1 << 64) - 1
_MULTIPLIER = 0x9E3779B97F4A7C15  # golden ratio, as in splitmix64 (Steele, Lea, Flood 2014)
_SEED = 0x243F6A8885A308D3  # pi


class Anchor(msgspec.Struct, frozen=True, gc=False):
    """The prefix of ``position`` tokens whose rolling hash is ``hash``."""

    position: int
    hash: int

    def then(self, token: int) -> "Anchor":
        """The anchor of this prefix with one more token."""
        return Anchor(self.position + 1, hash_after(self.hash, token))

    def after(self, tokens: Iterable[int]) -> "Anchor":
        """The anchor of this prefix with ``tokens`` appended."""
        anchor = self
        for token in tokens:
            anchor = anchor.then(token)
        return anchor


def hash_after(prefix: int, token: int) -> int:
    """The rolling hash of a prefix with one more token, from that of the prefix."""
    mixed = ((prefix ^ (token + 1)) * _MULTIPLIER) & _MASK
    return mixed ^ (mixed >> 29)


ORIGIN = Anchor(0, _SEED)
"""The empty prefix."""
