"""What a robot's middleware needs of Foredraft: a goal in, commands that parse out, and the text as it grows.

The nodes for dora-rs and ROS 2 beside it are both thin over this.
"""

from collections.abc import Callable
from typing import Annotated, Literal, Self

import msgspec

import foredraft


class Command(msgspec.Struct, forbid_unknown_fields=True):
    """What the controller takes."""

    action: Literal["walk", "turn", "stop"]
    metres: Annotated[int, msgspec.Meta(ge=0, le=9)]


class Planner:
    """Asks the cloud for one command per goal. Use it as a context."""

    def __init__(self, server: str, draft: str = "ngram") -> None:
        self._edge = foredraft.connect(server, draft=draft)
        self._constraint = foredraft.constraint_of(json_schema=Command)

    async def plan(self, goal: str, tell: Callable[[str], None]) -> Command:
        """The command for a goal; ``tell`` gets its text as it grows. Raises ForedraftError."""
        prompt = f"Goal: {goal}\nCommand: "
        async with self._edge.generate(prompt, max_new_tokens=64, constraint=self._constraint) as generation:
            async for piece in generation:
                tell(piece.text)
        return msgspec.json.decode(generation.report.text, type=Command)

    async def __aenter__(self) -> Self:
        await self._edge.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._edge.__aexit__(None, None, None)
