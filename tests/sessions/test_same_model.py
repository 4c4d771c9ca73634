"""A text is one model's from its beginning to its end, also when the servers change."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from foredraft.cloud.service import CloudService
from foredraft.edge.connections import Retry
from foredraft.edge.session import EdgeSession
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.errors import ModelError
from foredraft.links.memory import MemoryLink, memory_link
from foredraft.policies import make_policy
from foredraft.protocol.ports import Guess, Link
from foredraft.protocol.sampling import Sampling, StopRules


def truth(position: int) -> int:
    return position * 7 % 100 + 3


async def test_a_text_is_not_continued_by_another_model() -> None:
    first, second = ScriptedTarget(truth), ScriptedTarget(truth)
    second._card = replace(second.card, model_digest="another")
    targets = [first, second]
    edges: list[MemoryLink] = []
    tasks: set[asyncio.Task[None]] = set()

    async def connect() -> Link:
        edge, cloud = memory_link()
        edges.append(edge)
        tasks.add(asyncio.create_task(CloudService(targets.pop(0)).handle(cloud)))
        return edge

    session = EdgeSession(
        [1, 2, 3],
        connect=connect,
        drafter=ScriptedDrafter(lambda position, _: [Guess(truth(position), 0.9)]),
        policy=make_policy("sync"),
        sampling=Sampling(),
        rules=StopRules(400),
        retry=Retry(first_s=0.0),
    )

    async def read_and_cut() -> None:
        async with aclosing(session.stream()) as stream:
            async for _ in stream:
                edges[0].cut()

    with pytest.raises(ModelError, match="begun by the model scripted, and the server now serves another"):
        await read_and_cut()
    await asyncio.gather(*tasks)
