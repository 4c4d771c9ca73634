"""How many devices one server carries: as planned from its measured profile, and as measured with as many real edges.

The objective is one of time per token: at most so many times what one edge takes alone. Plan and measurement search
in the same way (``plan.capacity``); the edges are those of ``crowd``, in a process of their own. Of the
runs of a number of devices the fastest counts, as many really and simulated: whatever else a machine does only takes
time.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from foredraft.profiles import TargetProfile
from foredraft_sim.plan.capacity import Fleet, capacity, side_by_side
from foredraft_sim.validate.crowd import (
    Crowd,
    Ran,
    Tell,
    faster,
    measured_link,
    measured_target,
    really,
    simulated,
    stage,
)
from foredraft_sim.validate.sessions import Cores

MOST_OFF: Final = 0.10
"""How far the planned number of devices may be off the measured one."""
OBJECTIVE: Final = "p90-tpot"
TIMES: Final = 2.5
"""So many times what one edge takes alone is the most time per token."""
MOST_DEVICES: Final = 48

CARRIED: Final = Crowd(requests=8, think_s=0.5, runs=3, batches="1,2,4,8,16,32")
"""Edges that think for longer, so that a server carries some tens of them."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What was found. ``most_s``: the objective. ``real_s``, ``planned_s``: time per token by number of devices."""

    crowd: Crowd
    target: TargetProfile
    most_s: float
    real: int
    planned: int
    real_s: dict[int, float]
    planned_s: dict[int, float]

    @property
    def off(self) -> float:
        """Planned over measured devices, less one."""
        return self.planned / self.real - 1.0 if self.real else float("inf")

    def missed(self) -> list[str]:
        """What is further off than it may be, in words."""
        if abs(self.planned - self.real) <= MOST_OFF * self.real:
            return []
        return [
            f"{self.planned} devices planned, {self.real} carried: off by {self.off:+.0%}, more than {MOST_OFF:.0%}"
        ]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        told = {name: getattr(self, name) for name in ("most_s", "real", "planned", "real_s", "planned_s", "off")}
        return {"model": self.crowd.model, "bound": MOST_OFF, **told, "missed": self.missed()}

    def lines(self) -> list[str]:
        """For people."""
        verdict = [f"MISSED: {one}" for one in self.missed()] or [
            f"The plan is within {MOST_OFF:.0%}: {self.planned} devices planned, {self.real} carried ({self.off:+.0%})."
        ]
        return [
            *verdict,
            f"{self.crowd.model}, {self.crowd.threads} threads, policy cloud; objective: {OBJECTIVE} at most "
            f"{self.most_s * 1e3:.1f} ms, {TIMES:g} times what one edge takes alone.",
            f"Devices and ms per token: real {_each(self.real_s)}; planned {_each(self.planned_s)}.",
        ]


def _each(found_s: dict[int, float]) -> str:
    return ", ".join(f"{devices}: {taken_s * 1e3:.1f}" for devices, taken_s in sorted(found_s.items()))


def validate_carried(
    crowd: Crowd, where: Cores, *, force: bool, most: int = MOST_DEVICES, tell: Tell = lambda what, share: None
) -> Carried:
    """Measure, plan, and run for real. Raises ConfigError (a machine too noisy), ForedraftError."""
    alone = crowd.threads == 1
    edge, cloud = (where.edge, where.cloud) if alone else (None, None)
    tell("measuring batches", 0.0)
    profiles = [measured_target(crowd, cloud, force=force)]
    with stage(crowd, edge, cloud) as (url, asking):
        link = measured_link(edge, url)
        runs = iter(range(1 << 20))  # each run has prompts of its own

        def real(devices: int) -> Ran:
            tell(f"{devices} edges", 0.4)
            return really(crowd, devices, asking, next(runs))

        real(1)  # loads what is loaded once
        most_s = TIMES * _least_s(crowd, lambda luck: real(1))
        carried, real_s = searched(crowd, most_s, most, lambda devices, luck: real(devices))
    tell("measuring batches again", 0.6)
    profiles.append(measured_target(crowd, cloud, force=True))
    target = faster(profiles)
    tell("planning", 0.9)
    planned, planned_s = searched(
        crowd, most_s, most, lambda devices, luck: simulated(crowd, devices, target, link, luck)
    )
    return Carried(crowd, target, most_s, carried, planned, real_s, planned_s)


def _least_s(crowd: Crowd, run: Callable[[int], Ran]) -> float:
    return min(run(luck).tpot_p90_s for luck in range(crowd.runs))


def searched(crowd: Crowd, most_s: float, most: int, run: Callable[[int, int], Ran]) -> tuple[int, dict[int, float]]:
    """The most devices that keep the objective, and the time per token of each number that was tried."""
    found_s: dict[int, float] = {}

    def measure(devices: int) -> Fleet:
        found_s[devices] = taken_s = _least_s(crowd, lambda luck: run(devices, luck))
        broken = (OBJECTIVE,) if taken_s > most_s else ()
        return Fleet(devices, {OBJECTIVE: taken_s}, [], broken, 0.0, 0.0, None, None)

    asked = [capacity("cloud", most)]
    holds = side_by_side(asked, lambda fleets: [measure(devices) for _, devices in fleets])[0].holds
    return (0 if holds is None else holds.devices), found_s


def of(model: str, threads: int, *, quick: bool) -> Crowd:
    """The edges for a model; fewer runs and calls where it must be quick."""
    wanted = replace(CARRIED, model=model, threads=threads)
    return replace(wanted, runs=2, repeats=3) if quick else wanted
