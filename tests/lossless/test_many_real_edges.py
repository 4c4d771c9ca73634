"""Eight edges on one real target over real WebSockets: each gets its text, and what one does is no other's trouble."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import foredraft
from engines.torch_reference import PlainHeads, prompt_of
from foredraft.core import messages
from foredraft.core.events import Event
from foredraft.core.messages import Hello, Open, Refused, Steer
from foredraft.core.ports import Link
from foredraft.core.sampling import Sampling
from foredraft.core.walker import Limits
from foredraft.engines.torch_model import LoadedModel
from foredraft.engines.torch_target import TorchSeat, TorchTarget
from foredraft.links import websocket
from foredraft.text import Tokenizer
from lossless.oracle import Oracle

LENGTH = 24
EDGES = 8
POLICIES = ("cloud", "sync", "seed:threshold=0.0", "ahead:threshold=0.0")
BUDGET_ROWS = 12 * 512
PROMPTS = [prompt_of(6 + edge, seed=edge) for edge in range(EDGES)]
SAMPLING = Sampling(temperature=0.8, seed=9)


class CountingTarget(TorchTarget):
    """Tells when seats are taken."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._taken = asyncio.Semaphore(0)

    async def seat(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> TorchSeat:
        seat = await super().seat(tokens, sampling, owner)
        self._taken.release()
        return seat

    async def until_taken(self, seats: int) -> None:
        for _ in range(seats):
            await self._taken.acquire()


@asynccontextmanager
async def serving(model: LoadedModel, limits: Limits | None = None) -> AsyncIterator[tuple[CountingTarget, str]]:
    """A target with ``EDGES`` seats and a small budget for their caches, at a URL; checked after each pass."""
    budget_bytes = model.kv.row_bytes * BUDGET_ROWS
    target = CountingTarget(
        model, PlainHeads(model), max_seats=EDGES, cache_bytes=budget_bytes, retry_after_s=0.02, prefill_chunk=16
    )

    def within_budget(event: Event) -> None:
        assert target.pool.held_rows <= BUDGET_ROWS
        assert target.pool.active <= EDGES

    cloud = foredraft.Cloud(target, Tokenizer.from_folder(model.folder), limits=limits, observer=within_budget)
    async with cloud, cloud.listen() as url:
        yield target, url
        assert target.pool.held_rows <= BUDGET_ROWS


async def write(url: str, number: int) -> list[int]:
    """One edge's text, drafted by lookup."""
    async with foredraft.connect(url, draft="ngram") as edge:
        asked = edge.generate(
            PROMPTS[number],
            policy=POLICIES[number % len(POLICIES)],
            temperature=SAMPLING.temperature,
            seed=SAMPLING.seed,
            max_new_tokens=LENGTH,
        )
        return (await asked.finish()).tokens


async def opened(url: str, stack: AsyncExitStack, alone: bool) -> Link:
    """A peer that shakes hands, asks for a text of 400 tokens, and then does nothing at all."""
    link = await websocket.connect(url)
    stack.push_async_callback(link.close)
    await link.send(Hello(messages.PROTOCOL_VERSION))
    steer = Steer(1, 1, alone_until=1000 if alone else 0)
    tokens = messages.pack(prompt_of(5))
    await link.send(Open(1, tokens, 5, 0.0, 0, 1.0, 0, 400, (), (), steer))
    return link


async def test_eight_edges_at_once_each_get_the_text_of_the_target_alone(
    target_model: LoadedModel, oracle: Oracle
) -> None:
    async with serving(target_model) as (target, url):
        texts = await asyncio.gather(*map(partial(write, url), range(EDGES)))
    for prompt, tokens in zip(PROMPTS, texts, strict=True):
        oracle.check(tokens, prompt, SAMPLING)
    assert target.pool.active == 0


async def test_edges_that_die_or_read_nothing_or_say_nothing_stall_no_other(
    target_model: LoadedModel, oracle: Oracle
) -> None:
    async with serving(target_model) as (target, url), AsyncExitStack() as stack:
        await opened(url, stack, alone=True)  # reads nothing
        await opened(url, stack, alone=False)  # says nothing more
        dead = await opened(url, stack, alone=True)
        assert isinstance(dead, websocket.WebSocketLink)
        await target.until_taken(3)
        dead._abort()
        texts = await asyncio.gather(*map(partial(write, url), range(EDGES - 3)))
    for prompt, tokens in zip(PROMPTS, texts, strict=False):
        oracle.check(tokens, prompt, SAMPLING)


async def test_a_session_too_many_is_told_when_to_retry_and_gets_its_text_once_one_leaves(
    target_model: LoadedModel, oracle: Oracle
) -> None:
    async with serving(target_model) as (target, url), AsyncExitStack() as stack:
        links = [await opened(url, stack, alone=False) for _ in range(EDGES)]
        await target.until_taken(EDGES)
        extra = await opened(url, stack, alone=False)
        await extra.receive()  # Ready
        refused = await extra.receive()
        assert isinstance(refused, Refused)
        assert (refused.code, refused.retry_after_s) == (messages.BUSY, 0.02)
        waiting = asyncio.create_task(write(url, 0))
        await links[3].close()
        oracle.check(await waiting, PROMPTS[0], SAMPLING)


async def test_idle_sessions_expire_and_free_their_places(target_model: LoadedModel, oracle: Oracle) -> None:
    async with serving(target_model, Limits(idle_s=0.05)) as (target, url), AsyncExitStack() as stack:
        links = [await opened(url, stack, alone=False) for _ in range(EDGES)]
        for link in links:
            await link.receive()  # Ready
            expired = await link.receive()
            assert isinstance(expired, Refused)
            assert (expired.code, expired.retry_after_s) == (messages.BUSY, 0.0)
        assert target.pool.active == 0
        oracle.check(await write(url, 1), PROMPTS[1], SAMPLING)
