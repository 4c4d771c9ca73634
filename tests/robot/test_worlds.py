"""Worlds: the same for a seed, with one goal each, and what success is."""

import subprocess
import sys
from dataclasses import replace

import pytest

from foredraft.robot.world import (
    NAMES,
    ORIGIN,
    Pose,
    Thing,
    World,
    bearing_deg,
    bumps,
    counts,
    in_view,
    make_world,
    meant_by,
    stands_before_goal,
)

CHAIR = Thing("chair", "red", 0.0, 3.0)
BALL = Thing("ball", "blue", 0.0, 2.0)


def world_of(*things: Thing) -> World:
    return World(0, things, f"go to the {things[0].name}", things[0], 1.0)


def test_a_seed_gives_the_same_world_in_another_process() -> None:
    code = "from foredraft.robot.world import make_world; print([make_world(seed) for seed in range(20)])"
    said = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    ]
    assert said[0] == said[1] == f"{[make_world(seed) for seed in range(20)]}\n"
    assert make_world(1) != make_world(2)


@pytest.mark.parametrize("seeds", [range(200), range(1_000_000, 1_000_200)])
def test_every_instruction_means_exactly_its_goal(seeds: range) -> None:
    for world in map(make_world, seeds):
        assert meant_by(world) == [world.goal], world


def test_both_ways_to_say_a_goal_occur_and_every_thing_has_a_name_of_its_own() -> None:
    worlds = [make_world(seed) for seed in range(200)]
    assert 50 < sum(map(counts, worlds)) < 110
    assert 90 < sum(counts(make_world(seed, 0.6)) for seed in range(200)) < 160
    for world in worlds:
        names = [thing.name for thing in world.things]
        assert len(set(names)) == len(names)
        assert set(names) <= set(NAMES)


def test_counted_goals_are_in_view_when_they_are_asked_for() -> None:
    for world in map(make_world, range(200)):
        if counts(world):
            assert in_view(world, ORIGIN, world.goal)


def test_bearings_grow_to_the_right() -> None:
    assert bearing_deg(ORIGIN, Thing("box", "red", 1.0, 1.0)) == pytest.approx(45.0)
    assert bearing_deg(Pose(0.0, 0.0, 90.0), CHAIR) == pytest.approx(-90.0)
    assert bearing_deg(Pose(0.0, 0.0, 350.0), CHAIR) == pytest.approx(10.0)
    assert bearing_deg(ORIGIN, Thing("box", "red", 0.0, -1.0)) == pytest.approx(180.0)


def test_what_stands_behind_another_thing_or_aside_is_not_in_view() -> None:
    assert in_view(world_of(CHAIR), ORIGIN, CHAIR)
    assert not in_view(world_of(CHAIR, BALL), ORIGIN, CHAIR)
    assert in_view(world_of(CHAIR, replace(BALL, x=1.0)), ORIGIN, CHAIR)
    assert not in_view(world_of(CHAIR), Pose(0.0, 0.0, 50.0), CHAIR)


def test_success_is_near_not_too_near_and_facing() -> None:
    world = world_of(CHAIR)
    assert stands_before_goal(world, Pose(0.0, 2.1, 0.0))
    assert stands_before_goal(world, Pose(0.0, 2.1, 20.0))
    assert not stands_before_goal(world, Pose(0.0, 2.1, 40.0))
    assert not stands_before_goal(world, Pose(0.0, 1.0, 0.0))
    assert not stands_before_goal(world, Pose(0.0, 2.5, 0.0))
    assert bumps(world, Pose(0.0, 2.5, 0.0))
