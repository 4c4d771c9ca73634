"""Worlds: things on a floor, where the robot begins, and an instruction that means exactly one of the things.

Metres and degrees; the floor's y points north, headings and bearings grow clockwise, so a positive one is to the right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Final

KINDS: Final = ("chair", "box", "ball", "cone")
COLOURS: Final = ("red", "green", "blue", "yellow")
NAMES: Final = tuple(f"{colour} {kind}" for colour, kind in product(COLOURS, KINDS))
ORDINALS: Final = ("first", "second", "third")
SIDES: Final = ("left", "right")
VERBS: Final = ("go to", "walk to", "stop in front of")

VIEW_DEG: Final = 90.0
"""How wide the robot sees."""

THING_RADIUS_M: Final = 0.35
ROBOT_RADIUS_M: Final = 0.2
STAND_M: Final = (0.6, 1.3)
"""How near and how far in front of its goal the robot may stand, centre to centre."""

FACING_DEG: Final = 25.0
"""How far off the middle of its view the goal may be when the robot stands in front of it."""

COUNTED_SHARE: Final = 0.4
"""Of the instructions that count things; the others name one."""

_NEAREST_M, _FARTHEST_M = 1.6, 4.4
_APART_M = 1.2
_APART_DEG = 17.0
_AISLE_M = 0.95
"""How clear of other things the straight way to the goal is."""

_IN_VIEW_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that stands on the floor."""

    kind: str
    colour: str
    x: float
    y: float

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the robot stands and which way it looks."""

    x: float
    y: float
    heading_deg: float


ORIGIN: Final = Pose(0.0, 0.0, 0.0)
"""Where every episode begins."""


@dataclass(frozen=True, slots=True)
class World:
    """What stands where, and which of the things the instruction means."""

    seed: int
    things: tuple[Thing, ...]
    instruction: str
    goal: Thing
    light: float
    """Of the scene, 1 for full."""


def distance_m(pose: Pose, thing: Thing) -> float:
    """From the robot's centre to the thing's."""
    return math.hypot(thing.x - pose.x, thing.y - pose.y)


def bearing_deg(pose: Pose, thing: Thing) -> float:
    """Where the thing is, seen from the robot: 0 ahead, positive to the right, above -180 and at most 180."""
    angle = math.degrees(math.atan2(thing.x - pose.x, thing.y - pose.y)) - pose.heading_deg
    return 180.0 - (180.0 - angle) % 360.0


def in_view(world: World, pose: Pose, thing: Thing) -> bool:
    """Whether the thing's middle is within the view and no nearer thing stands before it."""
    away, bearing = distance_m(pose, thing), bearing_deg(pose, thing)
    if abs(bearing) > VIEW_DEG / 2:
        return False
    nearer = [other for other in world.things if distance_m(pose, other) < away]
    return all(abs(bearing_deg(pose, other) - bearing) > _half_width_deg(distance_m(pose, other)) for other in nearer)


def bumps(world: World, pose: Pose) -> bool:
    """Whether the robot touches anything there."""
    return any(distance_m(pose, thing) < ROBOT_RADIUS_M + THING_RADIUS_M for thing in world.things)


def stands_before_goal(world: World, pose: Pose) -> bool:
    """What success is: near the goal, not too near, and facing it."""
    near, far = STAND_M
    return near <= distance_m(pose, world.goal) <= far and abs(bearing_deg(pose, world.goal)) <= FACING_DEG


def make_world(seed: int, counted_share: float = COUNTED_SHARE) -> World:
    """The world of this seed: the same in every process. The straight way to its goal is clear.

    ``counted_share``: how likely the instruction counts things, instead of naming one.
    """
    random = Random(f"world {seed}")
    while True:
        world = _draw(seed, random, counted_share)
        if world is not None and _is_clear(world):
            return world


def named(verb: str, name: str) -> str:
    """The instruction that names the goal."""
    return f"{verb} the {name}"


def counted(verb: str, number: int, kind: str, side: str) -> str:
    """The instruction that counts things of a kind from a side, ``number`` from 0, as they are seen then."""
    return f"{verb} the {ORDINALS[number]} {kind} on the {side}"


def from_side(world: World, pose: Pose, kind: str, side: str) -> list[Thing]:
    """The things of that kind in view, as they are counted from that side."""
    seen = [thing for thing in world.things if thing.kind == kind and in_view(world, pose, thing)]
    return sorted(seen, key=lambda thing: bearing_deg(pose, thing), reverse=side == "right")


def counts(world: World) -> bool:
    """Whether the instruction counts things from a side."""
    return world.instruction.endswith(SIDES)


def meant_by(world: World) -> list[Thing]:
    """The things that the words of the instruction mean; of every world that is made just its goal."""
    words = world.instruction.split()
    name, side = " ".join(words[-2:]), words[-1]
    if name in NAMES:
        return [thing for thing in world.things if thing.name == name]
    number, kind = ORDINALS.index(words[-5]), words[-4]
    return from_side(world, ORIGIN, kind, side)[number : number + 1]


def _draw(seed: int, random: Random, counted_share: float) -> World | None:
    """A world, or None where a thing found no place."""
    verb, light = random.choice(VERBS), random.uniform(0.8, 1.0)
    if random.random() >= counted_share:
        things = _place_named(random)
        return World(seed, things, named(verb, things[0].name), things[0], light) if things else None
    things = _place_counted(random)
    if not things:
        return None
    kind, side = things[0].kind, random.choice(SIDES)
    unasked = World(seed, things, "", things[0], light)
    row = from_side(unasked, ORIGIN, kind, side)
    number = random.randrange(len(row))
    return World(seed, things, counted(verb, number, kind, side), row[number], light)


def _place_counted(random: Random) -> tuple[Thing, ...]:
    """Two or three of a kind in view, and perhaps others anywhere; nothing where there was no place."""
    kind = random.choice(KINDS)
    half = VIEW_DEG / 2 - 6.0
    things: list[Thing] = []
    for colour in random.sample(COLOURS, random.choice((2, 2, 3))):
        if not _place(things, kind, colour, random, half):
            return ()
    others = [name for name in NAMES if not name.endswith(kind)]
    return tuple(things) if _place_all(things, random.sample(others, random.randint(0, 2)), random) else ()


def _place_named(random: Random) -> tuple[Thing, ...]:
    """Three to five things of different names, the goal first and often in view; nothing where there was no place."""
    names = random.sample(NAMES, random.randint(3, 5))
    colour, kind = names[0].split()
    half = VIEW_DEG / 2 - 6.0 if random.random() < _IN_VIEW_SHARE else 180.0
    things: list[Thing] = []
    if not _place(things, kind, colour, random, half):
        return ()
    return tuple(things) if _place_all(things, names[1:], random) else ()


def _place_all(things: list[Thing], names: list[str], random: Random) -> bool:
    pairs = [name.split() for name in names]
    return all(_place(things, kind, colour, random, 180.0) for colour, kind in pairs)


def _place(things: list[Thing], kind: str, colour: str, random: Random, half_deg: float) -> bool:
    """Put a thing within ``half_deg`` of straight ahead, apart from the others; False where a few tries fail."""
    for _ in range(20):
        away, angle = random.uniform(_NEAREST_M, _FARTHEST_M), math.radians(random.uniform(-half_deg, half_deg))
        thing = Thing(kind, colour, away * math.sin(angle), away * math.cos(angle))
        if all(_apart(thing, other) for other in things):
            things.append(thing)
            return True
    return False


def _apart(one: Thing, other: Thing) -> bool:
    turned = abs(bearing_deg(ORIGIN, one) - bearing_deg(ORIGIN, other))
    return math.hypot(one.x - other.x, one.y - other.y) >= _APART_M and min(turned, 360.0 - turned) >= _APART_DEG


def _is_clear(world: World) -> bool:
    goal = world.goal
    return all(_off_way_m(goal, thing) >= _AISLE_M for thing in world.things if thing != goal)


def _off_way_m(goal: Thing, thing: Thing) -> float:
    """How far the thing is from the straight way between the origin and the goal."""
    along = (thing.x * goal.x + thing.y * goal.y) / (goal.x**2 + goal.y**2)
    share = min(1.0, max(0.0, along))
    return math.hypot(thing.x - share * goal.x, thing.y - share * goal.y)


def _half_width_deg(away_m: float) -> float:
    return math.degrees(math.asin(min(1.0, THING_RADIUS_M / max(away_m, 1e-6))))
