"""Foredraft in simulated time: an event loop on SimPy, emulated links, seeded random streams.

Names are imported when they are first used: pytest loads this package in every project that has
it installed, and SimPy is to cost nothing there unless a test is simulated.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foredraft_sim.errors import (
        DeadlockError,
        LivelockError,
        ProfileRangeWarning,
        RealIOError,
        SimulationError,
    )
    from foredraft_sim.loop.event_loop import SimLoop
    from foredraft_sim.network.network import SimLink, SimNetwork, sim_link
    from foredraft_sim.network.traces import Trace, parse_trace, read_trace
    from foredraft_sim.streams import Streams, uniform
    from foredraft_sim.world.connect import SimulatedEdge, connect
    from foredraft_sim.world.world import World

_HOMES = {
    "errors": ("DeadlockError", "LivelockError", "ProfileRangeWarning", "RealIOError", "SimulationError"),
    "loop.event_loop": ("SimLoop",),
    "network.network": ("SimLink", "SimNetwork", "sim_link"),
    "streams": ("Streams", "uniform"),
    "world.connect": ("SimulatedEdge", "connect"),
    "world.world": ("World",),
    "network.traces": ("Trace", "parse_trace", "read_trace"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DeadlockError",
    "LivelockError",
    "ProfileRangeWarning",
    "RealIOError",
    "SimLink",
    "SimLoop",
    "SimNetwork",
    "SimulatedEdge",
    "SimulationError",
    "Streams",
    "Trace",
    "World",
    "connect",
    "parse_trace",
    "read_trace",
    "sim_link",
    "uniform",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
