"""Errors of the simulation.

SimulationError(ForedraftError)
├── DeadlockError   nothing is scheduled and tasks wait
├── LivelockError   callbacks run on and on, and time stands still
└── RealIOError     sockets, pipes, processes and signals, which have no place in simulated time

StorageError(ForedraftError)  where finished work is kept fails while it is used
WorkersError(ForedraftError)  what runs the tasks dies, or is lost
ScenarioError(ConfigError)  a scenario that is malformed, or that cannot be simulated to its end
"""

from foredraft.errors import ConfigError, ForedraftError


class SimulationError(ForedraftError):
    """Base of all errors of the simulation."""


class DeadlockError(SimulationError):
    """Nothing is scheduled, so the waiting tasks would wait for ever; the message names them."""


class LivelockError(SimulationError):
    """Too many callbacks ran without time moving; the message names what ran."""


class RealIOError(SimulationError, NotImplementedError):
    """Real I/O was asked of a simulated loop.

    Also a NotImplementedError, which is what libraries expect of a loop that cannot do something.
    """


class StorageError(ForedraftError):
    """Where finished work is kept was there and is no longer, or does not do what it should."""


class WorkersError(ForedraftError):
    """What runs the tasks dies, or is lost: nothing is wrong with what was asked."""


class ScenarioError(ConfigError):
    """A scenario that is malformed or cannot finish; the message names its file, the key and the value."""


class ProfileRangeWarning(UserWarning):
    """A profile is used outside of the range that it was made for."""
