"""A node for dora-rs: goals come in, the text's pieces and then the command go out."""

import asyncio
import os

import dora
import msgspec
from planner import Planner


async def main() -> None:
    """Plan until nobody sends goals any more."""
    node = dora.Node()
    async with Planner(os.environ["FOREDRAFT_SERVER"], os.environ.get("FOREDRAFT_DRAFT", "ngram")) as planner:
        while (event := await asyncio.to_thread(node.next)) is not None and event["type"] != "STOP":
            if event["type"] == "INPUT":
                goal = event["value"].to_pylist()[0]
                command = await planner.plan(goal, lambda text: node.send_output("progress", text.encode()))
                node.send_output("command", msgspec.json.encode(command))


if __name__ == "__main__":
    asyncio.run(main())
