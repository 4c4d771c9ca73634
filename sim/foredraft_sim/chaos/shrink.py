"""The least of a plan that still breaks the same invariant: items are left out for as long as it stays broken.

Deterministic, and no search: halves, then quarters, down to single items, again until nothing more can go (the
complement half of Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002).
"""

from collections.abc import Callable, Sequence

from foredraft_sim.chaos.plan import Plan

Breaks = Callable[[Plan], bool]
"""Whether a plan breaks what is looked for."""


def shrunk(plan: Plan, breaks: Breaks) -> Plan:
    """The plan with as few items as possible. ``breaks`` is true of the plan itself."""
    kept = [number for number, _ in plan.items]
    size = max(1, len(kept) // 2)
    while True:
        fewer = _without_some(plan, kept, size, breaks)
        if fewer == kept:
            if size == 1:
                return plan.keep(kept)
            size //= 2
        kept = fewer


def _without_some(plan: Plan, kept: Sequence[int], size: int, breaks: Breaks) -> list[int]:
    """Without each run of ``size`` items that is not needed, the last first: faults come after the sessions."""
    left = list(kept)
    for first in reversed(range(0, len(kept), size)):
        fewer = [number for number in left if number not in kept[first : first + size]]
        if len(fewer) < len(left) and breaks(plan.keep(fewer)):
            left = fewer
    return left
