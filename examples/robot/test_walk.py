"""A robot that sees, in simulated time: the loop that is deployed, over LTE, with an outage in the middle."""

import asyncio

import pytest

from foredraft.api.robot_planner import RobotPlanner, Walk, plan_rule
from foredraft.robot.world import make_world
from foredraft_sim.pytest_plugin import ConnectSimulated

WORLD = 7
DECISION_S = 8.0  # what a decision may take


async def walk(simulated_edge: ConnectSimulated, policy: str, outage_s: float = 0.0) -> Walk:
    """One walk with a policy; the link breaks after two seconds."""
    async with simulated_edge("robot.toml") as edge:
        if outage_s:
            asyncio.get_running_loop().call_at(2.0, edge.world.cut_link, outage_s)
        planner = RobotPlanner(edge, await edge.chat_card(), rule=plan_rule(), policy=policy)
        return await planner.walk(make_world(WORLD))


@pytest.mark.simulated
async def test_it_arrives_and_decides_sooner_than_by_the_cloud_alone(simulated_edge: ConnectSimulated) -> None:
    alone, drafted = await walk(simulated_edge, "cloud"), await walk(simulated_edge, "auto")
    assert drafted.end.succeeded
    assert drafted.tokens == alone.tokens  # the same plans
    assert drafted.decision_s < alone.decision_s
    assert max(decision.report.e2e_s for decision in drafted.decisions) < DECISION_S


@pytest.mark.simulated
async def test_an_outage_costs_one_decision_its_time_and_changes_no_plan(simulated_edge: ConnectSimulated) -> None:
    calm, broken = await walk(simulated_edge, "auto"), await walk(simulated_edge, "auto", outage_s=5.0)
    assert broken.tokens == calm.tokens
    late = [decision.report for decision in broken.decisions if decision.report.reconnects]
    assert len(late) == 1
    assert late[0].e2e_s > 4.0
