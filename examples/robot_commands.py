"""A robot asks for commands that its controller can parse, whatever the model says.

    python examples/robot_commands.py

The bundled pair knows nothing of robots: what it says is nonsense, but each answer is a command of this type. What the
type forces (braces, keys, quotes) takes no pass of the target.
"""

import asyncio
from typing import Annotated, Literal

import msgspec

import foredraft


class Command(msgspec.Struct, forbid_unknown_fields=True):
    """What the controller takes."""

    action: Literal["walk", "turn", "stop"]
    metres: Annotated[int, msgspec.Meta(ge=0, le=9)]


async def main() -> None:
    """Ask three times."""
    constraint = foredraft.constraint_of(json_schema=Command)
    cloud = await asyncio.to_thread(foredraft.Cloud.load, "demo")
    async with cloud, foredraft.connect(cloud, draft="demo") as edge:
        for seed in range(3):
            asked = edge.generate("COMMAND = '", temperature=0.8, seed=seed, max_new_tokens=64, constraint=constraint)
            report = await asked.finish()
            command = msgspec.json.decode(report.text, type=Command)
            print(f"{command}: {report.new_tokens} tokens, {report.forced} of them forced, {report.passes} passes")


if __name__ == "__main__":
    asyncio.run(main())
