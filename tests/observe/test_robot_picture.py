"""A robot's walk as a picture and moving: drawn from a walk of the expert's, without any model."""

from pathlib import Path

import pytest
from PIL import Image, ImageSequence

from foredraft.errors import ConfigError
from foredraft.observe.robot_picture import Pictured, Policy, animate, draw_walk
from foredraft.robot.camera import HEIGHT, WIDTH, render
from foredraft.robot.expert import expert_plan
from foredraft.robot.walk import Episode, advance
from foredraft.robot.world import make_world

SLOW, FAST = Policy("cloud", [(0.1, 0.6, 0.1)] * 9), Policy("auto", [(0.1, 0.2, 0.1)] * 9)


@pytest.fixture(scope="module")
def walk() -> Pictured:
    episode = Episode(make_world(7))
    poses, views, says = [episode.pose], [], []
    while not episode.is_over:
        plan = expert_plan(episode.world, episode.pose)
        views.append(render(episode.world, episode.pose))
        says.append(f"{plan.turn_deg:+d}")
        episode = advance(episode, plan)
        poses.append(episode.pose)
    return Pictured(episode.world, poses, views, says)


def with_decisions(policy: Policy, walk: Pictured) -> Policy:
    return Policy(policy.name, policy.parts_s[: len(walk.views)])


def test_a_walk_is_drawn_with_its_views_and_times(walk: Pictured, tmp_path: Path) -> None:
    policies = [with_decisions(policy, walk) for policy in (SLOW, FAST)]
    for name in ("walk.png", "new/walk.svg"):
        draw_walk(walk, policies, tmp_path / name, "what it is")
    with Image.open(tmp_path / "walk.png") as image:
        assert image.width > 1500
    svg = (tmp_path / "new" / "walk.svg").read_text()
    assert svg.count("<image") == len(walk.views)
    assert SLOW.decision_s == pytest.approx(0.8)
    assert FAST.decision_s == pytest.approx(0.4)


def test_the_same_walk_moves_at_each_policys_pace(walk: Pictured, tmp_path: Path) -> None:
    policies = [with_decisions(policy, walk) for policy in (SLOW, FAST)]
    file = tmp_path / "walk.gif"
    animate(walk, policies, file)
    with Image.open(file) as moving:
        assert moving.width > 2 * 3 * WIDTH
        assert moving.height > 3 * HEIGHT
        durations_ms = [int(frame.info["duration"]) for frame in ImageSequence.Iterator(moving)]
    assert sum(durations_ms) / 1e3 == pytest.approx(0.8 * len(walk.views) + 1.0, abs=0.2)


def test_a_place_that_cannot_be_written_is_named(walk: Pictured, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the picture"):
        draw_walk(walk, [with_decisions(SLOW, walk)], tmp_path / "file" / "x.png", "")
    with pytest.raises(ConfigError, match="cannot write the animation"):
        animate(walk, [with_decisions(SLOW, walk)], tmp_path / "file" / "x.gif")
