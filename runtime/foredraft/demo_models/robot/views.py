"""What the models learn from: views of freshly made worlds, and for each some questions with the expert's plans.

The poses are an expert's on its way, walking badly, and any others, so that what goes wrong is seen in training too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from foredraft.robot.camera import View, render, spot
from foredraft.robot.expert import expert_plan
from foredraft.robot.plans import NOTHING, SEARCH_DEG, Plan, write_plan
from foredraft.robot.walk import Episode, Gait, advance, question
from foredraft.robot.world import (
    NAMES,
    ORDINALS,
    SIDES,
    VERBS,
    VIEW_DEG,
    Pose,
    Thing,
    World,
    bumps,
    counted,
    from_side,
    in_view,
    make_world,
    named,
)

QUESTIONS = 3
"""About each view: what the eyes cost is shared."""

COUNTED_WORLDS = 0.6
"""The share of worlds whose instruction counts: more than in those that the robot is sent into, as it is harder."""

BAD_GAIT = Gait(turn_deg=14.0, walk_share=0.35)
START_POSES, RANDOM_POSES = 8, 3
"""Of each world, beside those on the way: about the start, where things are counted, and anywhere."""

_POOL = 256
"""Views among which the next is drawn, so that those of one world come apart."""

_ABSENT_SHARE = 0.06
_COUNTING_SHARE = 0.8
"""Of the questions where there is something to count: that takes longest to learn."""

_COUNTED_SHARE = 0.3
_IN_VIEW_SHARE = 0.75
"""Of the questions where anything is in view; what is out of view is soon learned."""

_FACING_SHARE = 0.85


class Spot(NamedTuple):
    """A thing in view: the number of its name, its middle's column and row, and metres ahead.

    `counted`: its number among those of its kind from either side, as `SIDES`, or None where it is hidden.
    """

    name: int
    column: float
    row: float
    metres: float
    counted: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Lesson:
    """A view, and what is asked and to be answered about it, `QUESTIONS` times.

    `spots`: what the eyes have to tell of this view.
    """

    view: View
    asked: tuple[tuple[str, str], ...]
    spots: tuple[Spot, ...] = ()


def lessons(seeds: Iterator[int]) -> Iterator[Lesson]:
    """Lessons on the worlds of these seeds, mixed; as many as the seeds give."""
    pool: list[tuple[World, Pose]] = []
    random = Random("lessons")
    for seed in seeds:
        world = make_world(seed, COUNTED_WORLDS)
        pool += [(world, pose) for pose in poses(world, Random(f"poses {seed}"))]
        while len(pool) >= _POOL:
            yield lesson(*pool.pop(random.randrange(len(pool))), random)
    while pool:
        yield lesson(*pool.pop(random.randrange(len(pool))), random)


def lesson(world: World, pose: Pose, random: Random) -> Lesson:
    """The view from there, and some questions about it."""
    asked = tuple(_ask(world, pose, random) for _ in range(QUESTIONS))
    return Lesson(render(world, pose), asked, tuple(_spots(world, pose)))


def _spots(world: World, pose: Pose) -> Iterator[Spot]:
    for thing in world.things:
        place = spot(world, pose, thing)
        if place is not None:
            rows = [from_side(world, pose, thing.kind, side) for side in SIDES]
            counted = (rows[0].index(thing), rows[1].index(thing)) if thing in rows[0] else None
            yield Spot(NAMES.index(thing.name), *place, counted)


def poses(world: World, random: Random) -> list[Pose]:
    """Where an expert that walks badly comes by, and some places more."""
    found: list[Pose] = []
    episode = Episode(world)
    while not episode.is_over:
        found.append(episode.pose)
        episode = advance(episode, expert_plan(world, episode.pose), BAD_GAIT)
    found += [_about_start(random) for _ in range(START_POSES)]
    return found + [_anywhere(world, random) for _ in range(RANDOM_POSES)]


def _about_start(random: Random) -> Pose:
    """Nearly where every episode begins, looking nearly that way."""
    return Pose(random.uniform(-0.3, 0.3), random.uniform(-0.3, 0.3), random.uniform(-12.0, 12.0) % 360.0)


def _anywhere(world: World, random: Random) -> Pose:
    """Somewhere near one of the things, mostly so that it is in view or nearly."""
    while True:
        thing = random.choice(world.things)
        away, way = random.uniform(0.5, 5.0), random.uniform(0.0, 360.0)
        angle = math.radians(way)
        half = VIEW_DEG / 2 if random.random() < _FACING_SHARE else 180.0
        heading = (way + random.uniform(-half, half)) % 360.0
        pose = Pose(thing.x - away * math.sin(angle), thing.y - away * math.cos(angle), heading)
        if not bumps(world, pose):
            return pose


def _ask(world: World, pose: Pose, random: Random) -> tuple[str, str]:
    """A question and the expert's answer: about a thing that is there, or a name that is not."""
    verb = random.choice(VERBS)
    if random.random() < _ABSENT_SHARE:
        name = random.choice([name for name in NAMES if name not in {thing.name for thing in world.things}])
        return question(named(verb, name), NOTHING), write_plan(Plan(NOTHING, SEARCH_DEG, 0.0, False))
    seen = [thing for thing in world.things if in_view(world, pose, thing)]
    alike = [thing for thing in seen if [other.kind for other in seen].count(thing.kind) > 1]
    if alike and random.random() < _COUNTING_SHARE:
        thing, side = random.choice(alike), random.choice(SIDES)
        number = from_side(world, pose, thing.kind, side).index(thing)
        if number < len(ORDINALS):
            return question(counted(verb, number, thing.kind, side), NOTHING), _answer(world, pose, thing)
    thing = random.choice(seen if seen and random.random() < _IN_VIEW_SHARE else world.things)
    asked = named(verb, thing.name)
    if random.random() < _COUNTED_SHARE:  # what was counted before is known by its name
        asked = counted(verb, random.randrange(len(ORDINALS)), thing.kind, random.choice(SIDES))
        return question(asked, thing.name), _answer(world, pose, thing)
    return question(asked, random.choice((NOTHING, thing.name))), _answer(world, pose, thing)


def _answer(world: World, pose: Pose, goal: Thing) -> str:
    return write_plan(expert_plan(replace(world, goal=goal), pose))
