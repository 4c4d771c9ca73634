"""What never meets need not be simulated together: the islands of a scenario, and their results as one.

An island is some servers with the devices that only they serve. Where each device keeps to its server
(``balance = "affinity"``), every server makes one. Nothing passes between two islands, all luck is drawn by the number
of a request, a device or a server, and every island begins at time 0: so each can have a loop of its own, and what
comes of it is, to the last bit, what would have come of it among the others.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from foredraft_sim.scenario.finished import Finished, Replication
from foredraft_sim.scenario.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Island:
    """Servers and devices by their numbers, in ascending order."""

    servers: Sequence[int]
    devices: Sequence[int]


@dataclass(frozen=True, slots=True)
class IslandDone:
    """What one island leaves behind of a replication. Fields as in ``Replication``, but busy seconds are by number."""

    finished: Sequence[Finished]
    duration_s: float
    servers_busy_s: Mapping[int, float]
    devices_busy_s: Mapping[int, float]
    warnings: frozenset[str] = frozenset()
    recorded: bytes = b""


def everything(scenario: Scenario) -> Island:
    """All servers and devices as one island."""
    return Island(range(scenario.file.cloud.servers), range(scenario.workload.devices))


def islands_of(scenario: Scenario) -> list[Island]:
    """The smallest islands; a server without a device is in none."""
    servers, devices = scenario.file.cloud.servers, scenario.workload.devices
    if scenario.file.cloud.balance != "affinity":
        return [everything(scenario)]
    return [Island((number,), range(number, devices, servers)) for number in range(min(servers, devices))]


def shares(islands: Sequence[Island], count: int) -> list[Sequence[Island]]:
    """The islands in their order, divided among ``count``, or fewer if there are not so many."""
    count = min(count, len(islands))
    return [islands[len(islands) * part // count : len(islands) * (part + 1) // count] for part in range(count)]


def joined(policy: str, seed: int, done: Sequence[IslandDone]) -> Replication:
    """The replication that these islands make together."""
    return Replication(
        policy,
        seed,
        sorted((one for island in done for one in island.finished), key=lambda one: one.request),
        max(island.duration_s for island in done),
        _sum_s(island.servers_busy_s for island in done),
        _sum_s(island.devices_busy_s for island in done),
        tuple(sorted(frozenset[str]().union(*(island.warnings for island in done)))),
        recorded=b"".join(island.recorded for island in done),  # only everything in one island is ever recorded
    )


def _sum_s(busy_s: Iterable[Mapping[int, float]]) -> float:
    """In the order of the numbers, whatever the islands: sums of floats depend on it."""
    by_number = {number: one_s for island_s in busy_s for number, one_s in island_s.items()}
    return sum(by_number[number] for number in sorted(by_number))
