"""Who has shown no key yet: how many of one address there may be, how fast they may come, and who goes first.

Plain state; the time is told. An address is what one peer has: of IPv6 that is a network of 64 bits.
"""

import ipaddress
from typing import Final, Generic, TypeVar

Visitor = TypeVar("Visitor")

MANY, FAST, FULL, SILENT, MOVED = "address", "rate", "full", "silent", "moved"
"""Why somebody is turned away: too many of this address; too fast; no place; no key in time; a place for another."""

REASONS: Final = (MANY, FAST, FULL, SILENT, MOVED)
_BURST_S: Final = 1.0


class Strangers(Generic[Visitor]):
    """Those of whom nothing is known. ``most``: of one address; ``per_s``: new ones of it; 0 is any number."""

    def __init__(self, most: int, per_s: float) -> None:
        self._most, self._per_s = most, per_s
        self._of: dict[str, dict[Visitor, int]] = {}  # by address, with their numbers, the first to come first
        self._came = 0
        self._left: dict[str, tuple[float, float]] = {}  # how many may still come, and when that was so; oldest first

    def refuses(self, address: str, now_s: float) -> str:
        """Why one more of this address is turned away; empty where it is not."""
        if self._per_s and not self._spend(address, now_s):
            return FAST
        return MANY if 0 < self._most <= len(self._of.get(address, ())) else ""

    def _spend(self, address: str, now_s: float) -> bool:
        """Take one of what may come now; whether there was one."""
        burst = max(1.0, self._per_s * _BURST_S)
        left, then_s = self._left.pop(address, (burst, now_s))
        left = min(burst, left + (now_s - then_s) * self._per_s)
        self._left[address] = left - 1.0 if left >= 1.0 else left, now_s
        while (oldest := next(iter(self._left.items())))[1][1] < now_s - burst / self._per_s:
            del self._left[oldest[0]]  # full again by now
        return left >= 1.0

    def add(self, visitor: Visitor, address: str) -> None:
        """One has come."""
        self._came += 1
        self._of.setdefault(address, {})[visitor] = self._came

    def remove(self, visitor: Visitor, address: str) -> None:
        """It has gone, or is known by now."""
        group = self._of.get(address, {})
        group.pop(visitor, None)
        if not group:
            self._of.pop(address, None)

    def first_to_go(self, newcomer: str) -> Visitor | None:
        """Who makes room for one of the address ``newcomer``: the oldest of the address that has most, counting it."""

        def weight(address: str) -> tuple[int, int]:
            group = self._of[address]
            return len(group) + (address == newcomer), -next(iter(group.values()))

        return next(iter(self._of[max(self._of, key=weight)])) if self._of else None


def address_of(peer: object) -> str:
    """The address of a socket's peer."""
    host = str(peer[0]).partition("%")[0] if isinstance(peer, tuple) and peer else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
