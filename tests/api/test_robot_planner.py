"""A robot's planner on the bundled pair with eyes: the plans are the target's own, whoever drafts."""

from collections.abc import AsyncIterator

import pytest_asyncio
from tokenizers import Tokenizer

import foredraft
from foredraft.api.edge import Edge
from foredraft.api.robot_planner import RobotPlanner, Walk, plan_rule
from foredraft.demo_models import bundled_pair
from foredraft.demo_models.robot.drive import Driver, drive
from foredraft.demo_models.robot.models import load
from foredraft.robot.world import make_world

NAMED = (7, 14)
"""Worlds whose goal is named, so that the target gets there."""


@pytest_asyncio.fixture
async def edge() -> AsyncIterator[Edge]:
    async with foredraft.Cloud.load("demo-robot") as cloud, foredraft.connect(cloud, draft="demo-robot") as edge:
        yield edge


async def walk(edge: Edge, number: int, policy: str, *, held: bool = True, blind: bool = False) -> Walk:
    rule = plan_rule() if held else None
    planner = RobotPlanner(edge, await edge.chat_card(), rule=rule, policy=policy, blind=blind)
    return await planner.walk(make_world(number))


async def test_every_policy_walks_the_same_way_and_arrives(edge: Edge) -> None:
    for number in NAMED:
        walks = [await walk(edge, number, policy) for policy in ("cloud", "sync:gamma=4", "seed:gamma=4", "auto")]
        assert walks[0].end.succeeded
        assert all(one.tokens == walks[0].tokens for one in walks)


async def test_the_plans_are_what_transformers_generates(edge: Edge) -> None:
    folder = bundled_pair("demo-robot").target
    driver = Driver(load(folder), Tokenizer.from_file(str(folder / "tokenizer.json")))
    drive([make_world(NAMED[0])], driver)
    theirs = [answer for lesson in driver.said for _, answer in lesson.asked]
    for policy in ("cloud", "seed:gamma=4"):
        ours = await walk(edge, NAMED[0], policy, held=False)
        assert [decision.report.text for decision in ours.decisions] == theirs


async def test_a_plan_that_is_held_to_its_form_takes_fewer_passes_and_says_the_same(edge: Edge) -> None:
    free = await walk(edge, NAMED[0], "cloud", held=False)
    held = await walk(edge, NAMED[0], "cloud")
    assert [one.plan for one in held.decisions] == [one.plan for one in free.decisions]
    assert sum(one.report.passes for one in held.decisions) < sum(one.report.passes for one in free.decisions)
    assert all(one.report.forced for one in held.decisions)


async def test_who_is_shown_grey_does_not_arrive(edge: Edge) -> None:
    assert not (await walk(edge, NAMED[0], "cloud", blind=True)).end.succeeded


async def test_a_model_that_says_no_plan_leaves_the_robot_where_it_stands(edge: Edge) -> None:
    planner = RobotPlanner(edge, await edge.chat_card(), rule=None, policy="cloud", max_new_tokens=3)
    walked = await planner.walk(make_world(NAMED[0]))
    assert all(decision.plan is None for decision in walked.decisions)
    assert not walked.end.succeeded
