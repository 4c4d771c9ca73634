"""Foredraft in simulated time: an event loop on SimPy, emulated links, seeded random streams."""

from foredraft_sim.errors import DeadlockError, LivelockError, RealIOError, SimulationError
from foredraft_sim.loop import SimLoop

__all__ = ["DeadlockError", "LivelockError", "RealIOError", "SimLoop", "SimulationError"]
