"""Plans, the expert that writes them, and where they take the robot."""

import json
import math
from random import Random

import pytest

from foredraft.errors import ConfigError
from foredraft.robot.expert import expert_plan
from foredraft.robot.plans import EXAMPLE, NOTHING, SCHEMA, TURNS_DEG, WALKS_M, Plan, read_plan, write_plan
from foredraft.robot.walk import MAX_DECISIONS, Episode, Gait, advance, obey
from foredraft.robot.world import ORIGIN, Pose, Thing, World, make_world

BOX = Thing("box", "red", 0.0, 2.0)
WORLD = World(0, (BOX,), "go to the red box", BOX, 1.0)
EXACT = Gait(0.0, 0.0)


def led_by_expert(world: World) -> tuple[Episode, list[Plan]]:
    episode, plans = Episode(world), list[Plan]()
    while not episode.is_over:
        plans.append(expert_plan(world, episode.pose))
        episode = advance(episode, plans[-1])
    return episode, plans


def test_the_expert_succeeds_in_every_held_out_world_and_its_plans_are_plans() -> None:
    for world in map(make_world, range(200)):
        episode, plans = led_by_expert(world)
        assert episode.succeeded, episode
        assert [read_plan(write_plan(plan)) for plan in plans] == plans


def test_an_episode_repeats_itself() -> None:
    assert led_by_expert(make_world(7)) == led_by_expert(make_world(7))


def test_a_step_is_off_by_no_more_than_the_gait_allows() -> None:
    gait = Gait(turn_deg=3.0, walk_share=0.1)
    for seed in range(200):
        pose, bumped = obey(WORLD, Pose(0.0, -5.0, 0.0), Plan(NOTHING, -20, 1.0, False), Random(seed), gait)
        assert not bumped
        assert 337.0 <= pose.heading_deg <= 343.0
        assert 0.9 <= math.hypot(pose.x, pose.y + 5.0) <= 1.1


def test_a_plan_turns_right_then_walks_there() -> None:
    pose, _ = obey(WORLD, ORIGIN, Plan(NOTHING, 40, 1.5, False), Random(0), EXACT)
    assert pose.x == pytest.approx(1.5 * math.sin(math.radians(40.0)))
    assert pose.y == pytest.approx(1.5 * math.cos(math.radians(40.0)))


def test_walking_into_a_thing_ends_the_episode_without_success() -> None:
    episode = Episode(WORLD)
    for _ in range(2):
        episode = advance(episode, Plan("red box", 0, 1.5, False), EXACT)
    assert episode.bumped
    assert episode.is_over
    assert not episode.succeeded
    assert episode.pose.y < BOX.y - 0.4  # it stops where it touches


def test_saying_done_far_away_is_no_success_and_saying_nothing_ends_in_time() -> None:
    assert not advance(Episode(WORLD), Plan("red box", 0, 0.0, True)).succeeded
    episode = Episode(WORLD)
    while not episode.is_over:
        episode = advance(episode, None)
    assert episode.decisions == MAX_DECISIONS
    assert episode.pose == ORIGIN


def test_what_was_seen_is_asked_with_the_instruction_from_then_on() -> None:
    episode = Episode(WORLD)
    assert episode.question == "go to the red box\nseen: nothing"
    episode = advance(episode, Plan("red box", 0, 0.3, False))
    episode = advance(episode, Plan(NOTHING, 60, 0.0, False))
    assert episode.question == "go to the red box\nseen: red box"


def test_the_schema_allows_what_the_expert_may_say_and_names_every_key() -> None:
    assert list(SCHEMA["properties"]) == SCHEMA["required"] == list(json.loads(write_plan(EXAMPLE)))
    assert SCHEMA["properties"]["turn"]["enum"] == list(TURNS_DEG)
    walk = SCHEMA["properties"]["walk"]
    assert (walk["minimum"], walk["maximum"]) == (min(WALKS_M), max(WALKS_M))
    assert all(round(metres / walk["multipleOf"], 6).is_integer() for metres in WALKS_M)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("go left", "no plan"),
        ("[" * 5_000, "no plan"),
        ('{"see":"red chair"}', "keys must be"),
        ('{"see":"pink chair","turn":0,"walk":0.3,"done":false}', "pink chair"),
        ('{"see":"red chair","turn":15,"walk":0.3,"done":false}', "turn is 15"),
        ('{"see":"red chair","turn":0,"walk":9,"done":false}', "walk is 9"),
        ('{"see":"red chair","turn":0,"walk":0.3,"done":1}', "done is 1"),
        ('{"see":"red chair","turn":false,"walk":0.3,"done":true}', "turn is False"),
        ('{"see":["red chair"],"turn":0,"walk":0.3,"done":true}', "see is"),
    ],
)
def test_what_is_no_plan_says_why(text: str, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        read_plan(text)
