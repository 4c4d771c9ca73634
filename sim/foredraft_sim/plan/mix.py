"""The cheapest servers for a fleet, of several kinds: an unbounded knapsack, solved exactly."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Offer:
    """A kind of server: how many devices one carries, and its price."""

    name: str
    devices: int
    usd_per_hour: float


@dataclass(frozen=True, slots=True)
class Mix:
    """How many servers of each kind, by name, and what they cost."""

    servers: dict[str, int]
    usd_per_hour: float


def cheapest(offers: Sequence[Offer], devices: int) -> Mix | None:
    """The cheapest servers that carry so many devices; None where none carries any."""
    able = [offer for offer in offers if offer.devices > 0]
    if not able:
        return None
    best: list[tuple[float, Offer | None]] = [(0.0, None)]
    for count in range(1, devices + 1):
        ways = [(best[max(0, count - offer.devices)][0] + offer.usd_per_hour, offer) for offer in able]
        best.append(min(ways, key=lambda way: way[0]))
    servers: dict[str, int] = {}
    left = devices
    while left > 0:
        offer = best[left][1]
        assert offer is not None
        servers[offer.name] = servers.get(offer.name, 0) + 1
        left -= offer.devices
    return Mix(servers, best[devices][0])
