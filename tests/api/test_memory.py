"""Nothing grows at either end with the number of texts, over a link in this process and over WebSockets."""

import asyncio
import gc
import sys

import pytest

import foredraft
from api import clouds
from foredraft.edge.path_probability import token_moments
from foredraft.observe import live
from foredraft.policies import auto

WARM, MORE, AT_ONCE = 600, 600, 4
MOST_BLOCKS = MORE // 4
"""What may be more after the texts; one small object that each of them left would be four times as much."""


def blocks_held() -> int:
    """Python's own blocks of memory, without what is kept up to a bound on purpose."""
    for bounded in (auto.choose, auto.choose_in_time, token_moments):
        bounded.cache_clear()
    gc.collect()
    return sys.getallocatedblocks()


async def write(edge: foredraft.Edge, texts: int, policy: str) -> None:
    """So many texts, some at once: no more than connections are kept, as aiohttp holds a closed one for seconds."""
    numbers = iter(range(texts))

    async def some() -> None:
        for number in numbers:
            prompt = clouds.TEXT[: 5 + number % 4]
            await edge.generate(prompt, policy=policy, temperature=0.8, seed=number % 4, max_new_tokens=12).finish()

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    await asyncio.sleep(0.02)  # the other end is done with the last of them


async def grown(server: foredraft.Cloud | str, policy: str) -> int:
    """By how many blocks after so many more texts."""
    async with foredraft.connect(server, draft=clouds.drafter) as edge:
        await write(edge, WARM, policy)
        before = blocks_held()
        await write(edge, MORE, policy)
        return blocks_held() - before


@pytest.mark.parametrize("policy", ["sync", "auto"])
async def test_texts_leave_nothing_at_either_end(policy: str) -> None:
    async with clouds.cloud() as cloud:
        assert await grown(cloud, policy) < MOST_BLOCKS


async def test_texts_leave_nothing_over_websockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "KEPT_S", 0.0)  # what a page may show of the last seconds depends on how quick they were
    async with clouds.cloud() as cloud, cloud.listen() as url:
        assert await grown(url, "sync") < MOST_BLOCKS
