"""Foredraft in simulated time: an event loop on SimPy, emulated links, seeded random streams."""

from foredraft_sim.errors import (
    DeadlockError,
    LivelockError,
    ProfileRangeWarning,
    RealIOError,
    SimulationError,
)
from foredraft_sim.loop import SimLoop
from foredraft_sim.network import SimLink, SimNetwork, sim_link
from foredraft_sim.streams import Streams, uniform
from foredraft_sim.traces import Trace, parse_trace, read_trace

__all__ = [
    "DeadlockError",
    "LivelockError",
    "ProfileRangeWarning",
    "RealIOError",
    "SimLink",
    "SimLoop",
    "SimNetwork",
    "SimulationError",
    "Streams",
    "Trace",
    "parse_trace",
    "read_trace",
    "sim_link",
    "uniform",
]
