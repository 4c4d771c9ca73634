"""The view: what must be where."""

import io

import numpy as np
import pytest
from PIL import Image

from foredraft.robot.camera import HEIGHT, HORIZON, WIDTH, View, encode, grey_view, render, spot
from foredraft.robot.world import COLOURS, KINDS, ORIGIN, Pose, Thing, World


def view_of(*things: Thing, pose: Pose = ORIGIN) -> View:
    return render(World(0, things, "", things[0], 1.0), pose)


def painted(*things: Thing, pose: Pose = ORIGIN) -> np.ndarray:
    """Which pixels are not as without the things: bool, [HEIGHT, WIDTH]."""
    behind = Thing("box", "red", 0.0, -5.0)
    mask: np.ndarray = (view_of(*things, pose=pose) != view_of(behind)).any(-1)
    return mask


def hue(view: View) -> str:
    """The colour that most of the view's middle has."""
    red, green, blue = (float(part) for part in view[HEIGHT // 3 : HEIGHT // 2, 50:62].mean((0, 1)))
    if blue > max(red, green):
        return "blue"
    if red > 1.6 * green:
        return "red"
    return "green" if green > 1.5 * red else "yellow"


@pytest.mark.parametrize("colour", COLOURS)
def test_what_is_straight_ahead_fills_the_middle_with_its_colour(colour: str) -> None:
    assert hue(view_of(Thing("box", colour, 0.0, 1.2))) == colour


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_nearer_is_larger_and_reaches_lower(kind: str) -> None:
    near, far = painted(Thing(kind, "red", 0.0, 1.2)), painted(Thing(kind, "red", 0.0, 3.0))
    assert near.sum() > 3 * far.sum() > 0
    assert np.nonzero(near)[0].max() > np.nonzero(far)[0].max() > HORIZON


@pytest.mark.parametrize("kind", KINDS)
def test_left_is_left_and_a_turn_to_the_right_moves_things_left(kind: str) -> None:
    left, right = painted(Thing(kind, "red", -1.0, 2.0)), painted(Thing(kind, "red", 1.0, 2.0))
    assert not left[:, WIDTH // 2 :].any()
    assert left.any()
    assert not right[:, : WIDTH // 2].any()
    ahead = Thing(kind, "red", 0.0, 2.0)
    turned = painted(ahead, pose=Pose(0.0, 0.0, 20.0))
    assert np.nonzero(turned)[1].mean() < np.nonzero(painted(ahead))[1].mean() - 10


def test_the_nearer_thing_hides_the_farther_whatever_their_order() -> None:
    near, far = Thing("box", "red", 0.0, 1.5), Thing("box", "blue", 0.0, 3.0)
    assert (view_of(near, far) == view_of(far, near)).all()
    assert hue(view_of(near, far)) == "red"


def test_shapes_differ() -> None:
    masks = [painted(Thing(kind, "red", 0.0, 1.5)) for kind in KINDS]
    for number, one in enumerate(masks):
        for other in masks[number + 1 :]:
            assert (one != other).sum() > 0.15 * one.sum()


def test_what_is_behind_is_not_drawn() -> None:
    assert not painted(Thing("cone", "yellow", 0.0, -2.0)).any()


def test_the_middle_of_a_thing_is_where_the_view_shows_it() -> None:
    thing = Thing("box", "green", 0.8, 2.0)
    found = spot(World(0, (thing,), "", thing, 1.0), ORIGIN, thing)
    assert found is not None
    rows, columns = np.nonzero(painted(thing))
    assert found[0] == pytest.approx(columns.mean(), abs=1.5)
    assert found[1] == pytest.approx(rows.mean(), abs=2.0)
    assert found[2] == pytest.approx(2.0)


def test_a_view_is_qwens_patches_and_survives_as_a_png() -> None:
    view = view_of(Thing("ball", "blue", 0.5, 2.0))
    assert view.shape == grey_view().shape == (HEIGHT, WIDTH, 3)
    assert view.dtype == np.uint8
    assert (HEIGHT % 28, WIDTH % 28) == (0, 0)
    assert (np.asarray(Image.open(io.BytesIO(encode(view)))) == view).all()
    assert encode(view, "JPEG")[:2] == b"\xff\xd8"
