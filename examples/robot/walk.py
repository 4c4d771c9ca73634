"""A robot walks by a model that sees: ``foredraft serve --model demo-robot``, and then

    python examples/robot/walk.py http://127.0.0.1:8471 7

The world and the robot are drawn; in the place of ``render`` and ``advance`` you have a camera and legs.
"""

import asyncio
import sys

import foredraft
from foredraft.api.robot_planner import RobotPlanner, plan_rule
from foredraft.robot.camera import render
from foredraft.robot.walk import Episode, advance
from foredraft.robot.world import make_world


async def main(server: str, number: int) -> None:
    """Ask for one plan after another until the robot says that it is there."""
    episode = Episode(make_world(number))
    print(f"“{episode.world.instruction}”")
    async with foredraft.connect(server, draft="demo-robot") as edge:
        planner = RobotPlanner(edge, await edge.chat_card(), rule=plan_rule())
        while not episode.is_over:
            view = render(episode.world, episode.pose)  # your camera's picture
            plan, report = await planner.plan(view, episode.question)
            print(f"{report.e2e_s * 1e3:5.0f} ms, {report.passes} passes, {report.bytes_up} bytes up: {report.text}")
            episode = advance(episode, plan)  # your robot does as it is told
    print("stands before its goal" if episode.succeeded else "did not get there")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
