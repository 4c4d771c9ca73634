"""What the robot sees: a first-person view, painted from the farthest thing to the nearest.

Things are flat shapes that face the robot, upright on the floor: a picture of them is right in place, size and
overlap, which is what a plan needs, and takes a fraction of a millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray

from foredraft.robot.world import THING_RADIUS_M, VIEW_DEG, Pose, Thing, World, in_view

WIDTH: Final = 112
HEIGHT: Final = 84
"""Of a view, in pixels: multiples of 28, Qwen2-VL's patches of 14 merged two by two."""

HORIZON: Final = 26
"""The row of the horizon: the camera looks level, its picture shifted down to show more of the floor."""

CAMERA_M: Final = 0.75
FOCAL: Final = WIDTH / 2 / math.tan(math.radians(VIEW_DEG / 2))
NEAREST_M: Final = 0.3
"""What is nearer than this, along the way the robot looks, is not drawn."""

HEIGHTS_M: Final = {"chair": 0.95, "box": 0.55, "ball": 0.6, "cone": 0.85}
PAINT: Final = {"red": (214, 40, 40), "green": (30, 158, 64), "blue": (36, 86, 216), "yellow": (240, 200, 24)}
_WALL, _FLOOR_FAR, _FLOOR_NEAR = (206, 212, 222), (150, 142, 134), (96, 88, 82)

_LAMPS: Final = np.linspace((1.1, 0.95, 0.75), (0.75, 0.95, 1.1), WIDTH)[None]
"""The robot's two lamps, a warm one on its left and a cool one on its right: their mix says where left is."""

View = NDArray[np.uint8]
"""A picture ``[HEIGHT, WIDTH, 3]``, RGB."""

_Grid = NDArray[np.float64]
_Shape = Callable[[_Grid, _Grid], _Grid]
"""Places on a thing (across, -1 to 1, and up, 0 to 1) to how bright its paint is there; 0 where one sees past it."""


def render(world: World, pose: Pose) -> View:
    """The view from there."""
    picture = _background()
    for thing in sorted(world.things, key=lambda thing: -_depth_m(pose, thing)):
        if _depth_m(pose, thing) > NEAREST_M:
            _paint(picture, pose, thing)
    return np.clip(picture * _LAMPS * world.light, 0, 255).astype(np.uint8)


def spot(world: World, pose: Pose, thing: Thing) -> tuple[float, float, float] | None:
    """Where the thing's middle is in the view: column and row in pixels, and metres ahead. None where out of view."""
    depth = _depth_m(pose, thing)
    if depth <= NEAREST_M or not in_view(world, pose, thing):
        return None
    scale = FOCAL / depth
    row = HORIZON + (CAMERA_M - HEIGHTS_M[thing.kind] / 2) * scale
    return WIDTH / 2 + _aside_m(pose, thing) * scale, row, depth


def grey_view() -> View:
    """What a blind robot is given: even grey."""
    return np.full((HEIGHT, WIDTH, 3), 128, np.uint8)


def encode(view: View, kind: str = "PNG") -> bytes:
    """The view as the bytes of an image file, PNG or JPEG."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(view).save(file, kind)
    return file.getvalue()


def _background() -> NDArray[np.float64]:
    """A wall down to the horizon, and a floor that is darker where it is near."""
    share = np.clip((np.arange(HEIGHT) - HORIZON) / (HEIGHT - HORIZON), 0.0, 1.0)[:, None]
    rows = np.asarray(_FLOOR_FAR) * (1.0 - share) + np.asarray(_FLOOR_NEAR) * share
    rows[:HORIZON] = _WALL
    return np.repeat(rows[:, None, :], WIDTH, axis=1)


def _paint(picture: NDArray[np.float64], pose: Pose, thing: Thing) -> None:
    scale = FOCAL / _depth_m(pose, thing)
    middle = WIDTH / 2 + _aside_m(pose, thing) * scale
    half = THING_RADIUS_M * scale
    bottom, tall = HORIZON + CAMERA_M * scale, HEIGHTS_M[thing.kind] * scale
    left, right = max(0, math.floor(middle - half)), min(WIDTH, math.ceil(middle + half))
    top, low = max(0, math.floor(bottom - tall)), min(HEIGHT, math.ceil(bottom))
    if left >= right or top >= low:
        return
    across = (np.arange(left, right)[None, :] + 0.5 - middle) / half
    up = (bottom - np.arange(top, low)[:, None] - 0.5) / tall
    shade = _SHAPES[thing.kind](*np.broadcast_arrays(across, up))
    part = picture[top:low, left:right]
    part[...] = np.where(shade[..., None] > 0.0, np.asarray(PAINT[thing.colour]) * shade[..., None], part)


def _chair(across: _Grid, up: _Grid) -> _Grid:
    """A back over a seat on two legs."""
    side = np.abs(across)
    back = (up > 0.55) & (up <= 1.0) & (side <= 0.8)
    seat = (up > 0.42) & (up <= 0.55) & (side <= 1.0)
    legs = (up >= 0.0) & (up <= 0.42) & (side > 0.7) & (side <= 0.95)
    return np.asarray(0.85 * back + 1.1 * seat + 0.6 * legs)


def _box(across: _Grid, up: _Grid) -> _Grid:
    """A front with a lighter lid, narrower at the far edge."""
    side = np.abs(across)
    front = (up >= 0.0) & (up <= 0.75) & (side <= 1.0)
    lid = (up > 0.75) & (up <= 1.0) & (side <= 1.0 - 1.2 * (up - 0.75))
    return np.asarray(0.8 * front + 1.15 * lid)


def _ball(across: _Grid, up: _Grid) -> _Grid:
    """A disc, brightest towards the light above its left."""
    round_ = across**2 + (2.0 * up - 1.0) ** 2 <= 1.0
    lit = 1.2 - 0.3 * np.hypot(across + 0.4, 2.0 * up - 1.4)
    return np.where(round_, lit, 0.0)


def _cone(across: _Grid, up: _Grid) -> _Grid:
    """A triangle with a dark band around it."""
    inside = (up >= 0.0) & (np.abs(across) <= 1.0 - up)
    band = (up > 0.35) & (up < 0.5)
    return np.where(inside, np.where(band, 0.4, 1.0), 0.0)


_SHAPES: Final[dict[str, _Shape]] = {"chair": _chair, "box": _box, "ball": _ball, "cone": _cone}


def _depth_m(pose: Pose, thing: Thing) -> float:
    """How far ahead, along the way the robot looks."""
    angle = math.radians(pose.heading_deg)
    return (thing.x - pose.x) * math.sin(angle) + (thing.y - pose.y) * math.cos(angle)


def _aside_m(pose: Pose, thing: Thing) -> float:
    """How far to the right of it."""
    angle = math.radians(pose.heading_deg)
    return (thing.x - pose.x) * math.cos(angle) - (thing.y - pose.y) * math.sin(angle)
