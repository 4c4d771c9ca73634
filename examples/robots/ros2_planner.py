"""An action server for ROS 2: a goal comes in, the text's pieces are feedback, the command is the result.

Not run here: rclpy comes with a ROS 2 installation. The action is Plan.action beside this file, in a package of yours
(``foredraft_interfaces``).
"""

import asyncio
import os
from typing import Any

import msgspec
import rclpy
from foredraft_interfaces.action import Plan
from planner import Planner
from rclpy.action import ActionServer
from rclpy.executors import MultiThreadedExecutor


async def main() -> None:
    """Serve the action until rclpy is shut down: it runs on threads of the executor's, the planner on this loop."""
    rclpy.init()
    node, loop = rclpy.create_node("foredraft_planner"), asyncio.get_running_loop()
    async with Planner(os.environ["FOREDRAFT_SERVER"], os.environ.get("FOREDRAFT_DRAFT", "ngram")) as planner:

        def execute(goal: Any) -> Any:
            def tell(text: str) -> None:
                goal.publish_feedback(Plan.Feedback(text=text))

            planning = asyncio.run_coroutine_threadsafe(planner.plan(goal.request.goal, tell), loop)
            command = planning.result()
            goal.succeed()
            return Plan.Result(command=msgspec.json.encode(command).decode())

        server = ActionServer(node, Plan, "plan", execute)
        executor = MultiThreadedExecutor()
        executor.add_node(node)
        await asyncio.to_thread(executor.spin)
        server.destroy()


if __name__ == "__main__":
    asyncio.run(main())
