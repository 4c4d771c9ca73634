"""The expert: the plan that follows from the world's true state. It is what the models learn."""

from __future__ import annotations

from typing import Final

from foredraft.robot.plans import NOTHING, SEARCH_DEG, TURNS_DEG, WALKS_M, Plan
from foredraft.robot.world import Pose, World, bearing_deg, distance_m, in_view

AIM_M: Final = 0.9
"""Where the expert stops, before the goal's centre."""

DONE_M: Final = (0.65, 1.1)
DONE_DEG: Final = 15.0
"""Nearer than this to straight ahead the expert is content; well within what success asks for."""


def expert_plan(world: World, pose: Pose) -> Plan:
    """Search to the right until the goal is in view, turn to it, walk up to it, say so."""
    goal = world.goal
    if not in_view(world, pose, goal):
        return Plan(NOTHING, SEARCH_DEG, 0.0, False)
    away, bearing = distance_m(pose, goal), bearing_deg(pose, goal)
    near, far = DONE_M
    if near <= away <= far and abs(bearing) <= DONE_DEG:
        return Plan(goal.name, 0, 0.0, True)
    turn = min(TURNS_DEG[:-1], key=lambda deg: abs(deg - bearing))
    return Plan(goal.name, turn, min(WALKS_M, key=lambda metres: abs(metres - (away - AIM_M))), False)
