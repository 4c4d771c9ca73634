"""What the models learn from: views of freshly made worlds, and for each some questions with the expert's plans.

The poses are an expert's on its way, walking badly, and any others, so that what goes wrong is seen in training too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

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

BAD_GAIT = Gait(turn_deg=14.0, walk_share=0.35)
RANDOM_POSES = 5
"""Of each world, beside those on the way."""

_POOL = 256
"""Views among which the next is drawn, so that those of one world come apart."""

_ABSENT_SHARE = 0.06
_COUNTED_SHARE = 0.5
_IN_VIEW_SHARE = 0.75
"""Of the questions where anything is in view; what is out of view is soon learned."""

_FACING_SHARE = 0.85


@dataclass(frozen=True, slots=True)
class Lesson:
    """A view, and what is asked and to be answered about it, `QUESTIONS` times.

    `spots`: what is in view, each the number of its name, its middle's column and row, and metres ahead.
    """

    view: View
    asked: tuple[tuple[str, str], ...]
    spots: tuple[tuple[int, float, float, float], ...] = ()


def lessons(seeds: Iterator[int]) -> Iterator[Lesson]:
    """Lessons on the worlds of these seeds, mixed; as many as the seeds give."""
    pool: list[tuple[World, Pose]] = []
    random = Random("lessons")
    for seed in seeds:
        world = make_world(seed)
        pool += [(world, pose) for pose in poses(world, Random(f"poses {seed}"))]
        while len(pool) >= _POOL:
            yield lesson(*pool.pop(random.randrange(len(pool))), random)
    while pool:
        yield lesson(*pool.pop(random.randrange(len(pool))), random)


def lesson(world: World, pose: Pose, random: Random) -> Lesson:
    """The view from there, and some questions about it."""
    asked = tuple(_ask(world, pose, random) for _ in range(QUESTIONS))
    places = [(NAMES.index(thing.name), spot(world, pose, thing)) for thing in world.things]
    return Lesson(render(world, pose), asked, tuple((name, *place) for name, place in places if place is not None))


def poses(world: World, random: Random) -> list[Pose]:
    """Where an expert that walks badly comes by, and some places more."""
    found: list[Pose] = []
    episode = Episode(world)
    while not episode.is_over:
        found.append(episode.pose)
        episode = advance(episode, expert_plan(world, episode.pose), BAD_GAIT)
    return found + [_anywhere(world, random) for _ in range(RANDOM_POSES)]


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
    thing = random.choice(seen if seen and random.random() < _IN_VIEW_SHARE else world.things)
    side = random.choice(SIDES)
    row = from_side(world, pose, thing.kind, side)
    if len(row) > 1 and random.random() < _COUNTED_SHARE:
        number = random.randrange(len(row))
        return question(counted(verb, min(number, 2), thing.kind, side), NOTHING), _answer(world, pose, row[number])
    asked = named(verb, thing.name)
    if random.random() < _COUNTED_SHARE:  # what was counted before is known by its name
        asked = counted(verb, random.randrange(len(ORDINALS)), thing.kind, side)
        return question(asked, thing.name), _answer(world, pose, thing)
    return question(asked, random.choice((NOTHING, thing.name))), _answer(world, pose, thing)


def _answer(world: World, pose: Pose, goal: Thing) -> str:
    return write_plan(expert_plan(replace(world, goal=goal), pose))
