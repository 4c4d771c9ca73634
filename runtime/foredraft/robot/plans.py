"""A plan: what the robot is told at each decision, as a short JSON text with fixed keys in a fixed order."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from foredraft.errors import ConfigError
from foredraft.robot.world import NAMES

NOTHING: Final = "nothing"
"""What is said to be seen when the goal is not in view."""

TURNS_DEG: Final = (*range(-40, 41, 10), 60)
"""What a plan may turn by, positive to the right; the last is for searching."""

SEARCH_DEG: Final = TURNS_DEG[-1]
WALKS_M: Final = (-0.3, 0.0, 0.3, 0.6, 0.9, 1.2, 1.5)
"""How far a plan may walk after the turn; back where it is below 0."""

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "see": {"enum": [*NAMES, NOTHING]},
        "turn": {"enum": list(TURNS_DEG)},
        "walk": {"type": "number", "minimum": WALKS_M[0], "maximum": WALKS_M[-1], "multipleOf": 0.3},
        "done": {"type": "boolean"},
    },
    "required": ["see", "turn", "walk", "done"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"},
}
"""The plan as a JSON schema; its last entry asks a decoder that is held to it for JSON without spaces."""


@dataclass(frozen=True, slots=True)
class Plan:
    """``see``: the goal's name where it is in view. ``turn_deg``, then ``walk_m``. ``done``: the robot is there."""

    see: str
    turn_deg: int
    walk_m: float
    done: bool


def write_plan(plan: Plan) -> str:
    """The plan's text: compact, every number written in one way."""
    done = "true" if plan.done else "false"
    return f'{{"see":"{plan.see}","turn":{plan.turn_deg},"walk":{plan.walk_m:.1f},"done":{done}}}'


def read_plan(text: str) -> Plan:
    """The plan that a text says.

    Raises:
        ConfigError: it is no plan; the message says why.
    """
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{text!r} is no plan: {error}; a plan is JSON like {write_plan(EXAMPLE)}") from error
    if not isinstance(said, dict) or sorted(said) != sorted(SCHEMA["required"]):
        raise ConfigError(f"{text!r} is no plan: its keys must be {', '.join(SCHEMA['required'])}")
    for name, values in _ALLOWED.items():
        if said[name] not in values or isinstance(said[name], bool) != (name == "done"):
            raise ConfigError(f"{text!r} is no plan: {name} is {said[name]!r}, not one of {values}")
    return Plan(said["see"], int(said["turn"]), float(said["walk"]), said["done"])


_ALLOWED: Final = {"see": (*NAMES, NOTHING), "turn": TURNS_DEG, "walk": WALKS_M, "done": (False, True)}
EXAMPLE: Final = Plan("red chair", -20, 0.9, False)
