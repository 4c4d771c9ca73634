"""How many devices a server carries under some objectives: the search, and what a fleet of that size does.

A fleet of another size asks as much per device: arrivals at random, or as recorded, come so much more often, and there
are as many more requests. It is assumed that more devices never make an objective hold that fewer break.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import msgspec

from foredraft_sim.scenario.finished import Replication
from foredraft_sim.scenario.results import figures_of, interval
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.scenario_file import AsRecorded, Poisson
from foredraft_sim.tune.metrics import metrics_of

Search = Generator[int, "Fleet", "Capacity"]
"""Says how many devices are to be tried next, and is told what such a fleet does."""
Measure = Callable[[Sequence[tuple[int, int]]], Sequence["Fleet"]]
"""What fleets do: of each the number of its search, and of its devices."""

REQUESTS_PER_DEVICE = 3
"""At least, so that there is a crowd."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """So many devices under one policy. ``metrics``: as ``tune`` has them, over all seeds; ``by_seed``: of each.

    ``broken``: the objectives that do not hold. Price and energy are None where the profiles do not tell.
    """

    devices: int
    metrics: Mapping[str, float]
    by_seed: Sequence[Mapping[str, float]]
    broken: tuple[str, ...]
    tokens_per_s: float
    utilisation: float
    usd_per_million_tokens: float | None
    edge_j_per_token: float | None

    def interval(self, metric: str) -> tuple[float, float] | None:
        """Student's 95% interval of a metric's mean over the seeds; None of one seed."""
        return interval([one[metric] for one in self.by_seed])


@dataclass(frozen=True, slots=True)
class Capacity:
    """The largest fleet that meets the objectives, and the smallest that was tried and does not."""

    policy: str
    holds: Fleet | None
    breaks: Fleet | None


def sized(scenario: Scenario, devices: int) -> Scenario:
    """The scenario with so many devices, each asking as much as before."""
    work = scenario.workload
    per_device = max(REQUESTS_PER_DEVICE, -(-work.requests // work.devices))
    arrivals = work.arrivals
    if isinstance(arrivals, Poisson):
        arrivals = msgspec.structs.replace(arrivals, rate_per_s=arrivals.rate_per_s * devices / work.devices)
    if isinstance(arrivals, AsRecorded):
        arrivals = msgspec.structs.replace(arrivals, speed=arrivals.speed * devices / work.devices)
    work = msgspec.structs.replace(work, devices=devices, requests=per_device * devices, arrivals=arrivals)
    return replace(scenario, file=msgspec.structs.replace(scenario.file, workload=work))


def fleet_of(scenario: Scenario, objectives: Mapping[str, float], ones: Sequence[Replication]) -> Fleet:
    """What the replications of one policy, a seed each, come to."""
    metrics = metrics_of(scenario, ones)
    rows = [figures_of(scenario, one) for one in ones]

    def mean(name: str) -> float | None:
        values = [value for row in rows if (value := row[name]) is not None]
        return fmean(values) if len(values) == len(rows) else None

    return Fleet(
        devices=scenario.workload.devices,
        metrics=metrics,
        by_seed=[metrics_of(scenario, [one]) for one in ones],
        broken=tuple(name for name, most in objectives.items() if metrics[name] > most),
        tokens_per_s=mean("tokens_per_s") or 0.0,
        utilisation=mean("utilisation") or 0.0,
        usd_per_million_tokens=mean("cost_usd_per_million_tokens"),
        edge_j_per_token=mean("edge_j_per_token"),
    )


def capacity(policy: str, most: int) -> Search:
    """The largest fleet that meets the objectives: twice as many each time, up to ``most``, and then between."""
    holds: Fleet | None = None
    breaks: Fleet | None = None
    devices = 1
    while breaks is None and devices <= most:
        fleet = yield devices
        if fleet.broken:
            breaks = fleet
        else:
            holds = fleet
            devices = min(most, 2 * devices) if devices < most else most + 1
    while holds is not None and breaks is not None and breaks.devices - holds.devices > _near(holds.devices):
        fleet = yield (holds.devices + breaks.devices) // 2
        holds, breaks = (holds, fleet) if fleet.broken else (fleet, breaks)
    return Capacity(policy, holds, breaks)


def side_by_side(searches: Sequence[Search], measure: Measure) -> list[Capacity]:
    """What each search finds. They go on together, so that fleets of all of them are measured at once."""
    found: dict[int, Capacity] = {}
    asked = {number: next(search) for number, search in enumerate(searches)}
    while asked:
        fleets = measure(list(asked.items()))
        for number, fleet in zip(list(asked), fleets, strict=True):
            try:
                asked[number] = searches[number].send(fleet)
            except StopIteration as end:
                found[number] = end.value
                del asked[number]
    return [found[number] for number in range(len(searches))]


def _near(devices: int) -> int:
    """How near is near enough: one in twenty."""
    return max(1, devices // 20)
