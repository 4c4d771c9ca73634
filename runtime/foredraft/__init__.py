"""Foredraft: edge-cloud speculative decoding with early exits.

The edge drafts with a small model, the cloud verifies with a large one, and the text is what the
large one alone would write. ``connect`` is where an edge begins, ``Cloud`` where a server does.

Names are imported when they are first used, so that parts of the package stay light by themselves.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foredraft.api import Edge, connect
    from foredraft.core.edge import Retry
    from foredraft.core.estimates import Estimates
    from foredraft.core.report import SessionReport
    from foredraft.engines.loading import ModelOptions
    from foredraft.errors import (
        ConfigError,
        EstimatesError,
        ForedraftError,
        LinkClosedError,
        LinkError,
        ModelError,
        ProfileError,
        ProtocolError,
        RecordError,
        RefusedError,
        UnknownNameError,
        UnreachableError,
    )
    from foredraft.generation import Generation, Piece
    from foredraft.hosting import Cloud
    from foredraft.learned import estimates_from_profiles, load_estimates, save_estimates
    from foredraft.policies import make_policy, policy_names
    from foredraft.record.reading import Record, read_record

__version__ = "0.1.0"

__all__ = [
    "Cloud",
    "ConfigError",
    "Edge",
    "Estimates",
    "EstimatesError",
    "ForedraftError",
    "Generation",
    "LinkClosedError",
    "LinkError",
    "ModelError",
    "ModelOptions",
    "Piece",
    "ProfileError",
    "ProtocolError",
    "Record",
    "RecordError",
    "RefusedError",
    "Retry",
    "SessionReport",
    "UnknownNameError",
    "UnreachableError",
    "connect",
    "estimates_from_profiles",
    "load_estimates",
    "make_policy",
    "policy_names",
    "read_record",
    "save_estimates",
]

_HOMES = {
    "Cloud": "hosting",
    "Edge": "api",
    "Estimates": "core.estimates",
    "Generation": "generation",
    "ModelOptions": "engines.loading",
    "Piece": "generation",
    "Record": "record.reading",
    "Retry": "core.edge",
    "SessionReport": "core.report",
    "connect": "api",
    "estimates_from_profiles": "learned",
    "load_estimates": "learned",
    "make_policy": "policies",
    "policy_names": "policies",
    "read_record": "record.reading",
    "save_estimates": "learned",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'foredraft' has no attribute {name!r}")
    return getattr(importlib.import_module(f"foredraft.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
