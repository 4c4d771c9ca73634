"""Random numbers that do not depend on each other, on the process or on the order of events.

A stream is keyed by (seed, name): one more draw in "uplink" changes nothing in "tokens", so the
same seed is the same luck for two policies that are compared. What has an index (the token at
a position of a request) is drawn by ``uniform``, which has no state at all.

Keys are hashed with BLAKE2b; ``hash()`` differs between processes. The counter-based generator
is splitmix64's finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", 2014).
"""

from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import Final

_MASK: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15


@lru_cache(maxsize=65536)
def key(seed: int, name: str) -> int:
    """64 bits that stand for (seed, name)."""
    return int.from_bytes(blake2b(f"{seed}/{name}".encode(), digest_size=8).digest())


def uniform(seed: int, name: str, *indices: int) -> float:
    """A number in [0, 1) that depends on the arguments only, with 53 random bits."""
    return drawn(key(seed, name), *indices)


def drawn(bits: int, *indices: int) -> float:
    """The number at ``indices`` of what ``key`` stands for with ``bits``."""
    for index in indices:
        bits = _mixed(bits + (index + 1) * _GOLDEN & _MASK)
    return (_mixed(bits) >> 11) * 2.0**-53  # the finaliser once more: with no index, too


def _mixed(bits: int) -> int:
    """Splitmix64's finaliser."""
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & _MASK
    return bits ^ bits >> 31


class Streams:
    """Named random streams of one seed.

    ``stream(name)`` is always the same generator, which goes on where it stopped.
    ``child(name)`` is another set of streams whose names cannot collide with these.
    """

    def __init__(self, seed: int, prefix: str = "") -> None:
        self.seed = seed
        self._prefix = prefix
        self._streams: dict[str, Random] = {}

    def stream(self, name: str) -> Random:
        """The generator called ``name``."""
        found = self._streams.get(name)
        if found is None:
            found = self._streams[name] = Random(key(self.seed, self._prefix + name))
        return found

    def uniform(self, name: str, *indices: int) -> float:
        """A number in [0, 1) at ``indices`` of ``name``; see the function ``uniform``."""
        return uniform(self.seed, self._prefix + name, *indices)

    def child(self, name: str) -> "Streams":
        """The streams of a part: a device, a request."""
        return Streams(self.seed, f"{self._prefix}{name}\0")
