"""Walking: where a plan takes the robot, a little off each time, and an episode of decisions from start to end."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from foredraft.robot.plans import NOTHING, Plan
from foredraft.robot.world import ORIGIN, Pose, World, bumps, stands_before_goal

MAX_DECISIONS: Final = 14
"""After so many an episode is over."""

_STRIDE_M: Final = 0.05


@dataclass(frozen=True, slots=True)
class Gait:
    """How far off a step may be: ``turn_deg`` either way, ``walk_share`` of what is walked. Uniform, so bounded."""

    turn_deg: float = 3.0
    walk_share: float = 0.08


def question(instruction: str, seen: str) -> str:
    """What is asked beside a view. ``seen``: what the last plan that saw the goal called it, or nothing."""
    return f"{instruction}\nseen: {seen}"


@dataclass(frozen=True, slots=True)
class Episode:
    """How far an episode is. ``seen``: what the last plan that saw the goal called it; ``done``: a plan said so."""

    world: World
    pose: Pose = ORIGIN
    seen: str = NOTHING
    decisions: int = 0
    bumped: bool = False
    done: bool = False

    @property
    def question(self) -> str:
        """What is asked beside the view: the instruction, and what the goal was found to be."""
        return question(self.world.instruction, self.seen)

    @property
    def is_over(self) -> bool:
        """Whether no further plan is asked for."""
        return self.done or self.bumped or self.decisions >= MAX_DECISIONS

    @property
    def succeeded(self) -> bool:
        """Whether it ended with the robot saying that it stands before its goal, it does, and nothing was touched."""
        return self.done and not self.bumped and stands_before_goal(self.world, self.pose)


def advance(episode: Episode, plan: Plan | None, gait: Gait = Gait()) -> Episode:
    """The episode after one more decision; None stands for a plan that could not be read: the robot waits.

    Chance goes by the world's seed and the number of the decision, so an episode can be repeated.
    """
    decisions = episode.decisions + 1
    if plan is None:
        return replace(episode, decisions=decisions)
    random = Random(f"walk {episode.world.seed} {decisions}")
    pose, bumped = obey(episode.world, episode.pose, plan, random, gait)
    seen = episode.seen if plan.see == NOTHING else plan.see
    return Episode(episode.world, pose, seen, decisions, episode.bumped or bumped, plan.done)


def obey(world: World, pose: Pose, plan: Plan, random: Random, gait: Gait) -> tuple[Pose, bool]:
    """Turn, then walk until the plan is done or something is touched: where the robot is then, and whether it was."""
    if plan.done:
        return pose, False
    turned = plan.turn_deg + random.uniform(-1.0, 1.0) * gait.turn_deg * (plan.turn_deg != 0 or plan.walk_m != 0)
    heading = (pose.heading_deg + turned) % 360.0
    length = plan.walk_m * (1.0 + random.uniform(-1.0, 1.0) * gait.walk_share)
    strides = max(1, round(abs(length) / _STRIDE_M))
    for number in range(1, strides + 1):
        at = ahead(pose, heading, length * number / strides)
        if bumps(world, at):
            return at, True
    return ahead(pose, heading, length), False


def ahead(pose: Pose, heading_deg: float, metres: float) -> Pose:
    """So far from there, that way."""
    angle = math.radians(heading_deg)
    return Pose(pose.x + metres * math.sin(angle), pose.y + metres * math.cos(angle), heading_deg)
