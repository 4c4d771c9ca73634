"""Foredraft: edge-cloud speculative decoding with early exits.

The edge drafts with a small model, the cloud verifies with a large one, and the text is what the
large one alone would write. ``connect`` is where an edge begins, ``Cloud`` where a server does.

Names are imported when they are first used, so that parts of the package stay light by themselves.
"""

import importlib
from typing import TYPE_CHECKING

from foredraft.version import __version__ as __version__

if TYPE_CHECKING:
    from foredraft.api.cloud import Cloud
    from foredraft.api.edge import Edge, connect
    from foredraft.api.generation import Generation, Piece
    from foredraft.api.loading import ModelOptions
    from foredraft.edge.connections import Retry
    from foredraft.edge.estimates import Estimates
    from foredraft.edge.saved_estimates import estimates_from_profiles, load_estimates, save_estimates
    from foredraft.edge.session_report import SessionReport
    from foredraft.errors import (
        ConfigError,
        DeadlineError,
        EstimatesError,
        ForedraftError,
        ImageError,
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
    from foredraft.images import EncodedImage, image_of
    from foredraft.observe.record.reading import Record, read_record
    from foredraft.policies import make_policy, policy_names
    from foredraft.text.constraint import Constraint, constraint_of

__all__ = [
    "Cloud",
    "ConfigError",
    "Constraint",
    "DeadlineError",
    "Edge",
    "EncodedImage",
    "Estimates",
    "EstimatesError",
    "ForedraftError",
    "Generation",
    "ImageError",
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
    "constraint_of",
    "estimates_from_profiles",
    "image_of",
    "load_estimates",
    "make_policy",
    "policy_names",
    "read_record",
    "save_estimates",
]

_HOMES = {
    "Cloud": "api.cloud",
    "Constraint": "text.constraint",
    "Edge": "api.edge",
    "EncodedImage": "images",
    "Estimates": "edge.estimates",
    "Generation": "api.generation",
    "ModelOptions": "api.loading",
    "Piece": "api.generation",
    "Record": "observe.record.reading",
    "Retry": "edge.session",
    "SessionReport": "edge.session_report",
    "connect": "api.edge",
    "constraint_of": "text.constraint",
    "estimates_from_profiles": "edge.saved_estimates",
    "image_of": "images",
    "load_estimates": "edge.saved_estimates",
    "make_policy": "policies",
    "policy_names": "policies",
    "read_record": "observe.record.reading",
    "save_estimates": "edge.saved_estimates",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'foredraft' has no attribute {name!r}")
    return getattr(importlib.import_module(f"foredraft.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
