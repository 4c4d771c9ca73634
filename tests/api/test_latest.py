"""Asks of which only the newest matters."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import pytest

import foredraft
from api import clouds
from foredraft.api.latest import Latest
from foredraft.edge.session_report import SessionReport
from foredraft.engines.scripted import ScriptedSlot, ScriptedTarget
from foredraft.errors import ConfigError, RefusedError
from foredraft.protocol.ports import Pass, Prediction, Verdict
from foredraft.protocol.sampling import Sampling

PROMPT = clouds.TEXT[:13]
START = len(PROMPT.encode())


class Held(ScriptedTarget):
    """Its passes wait until ``gate`` is open."""

    gate: asyncio.Event

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> ScriptedSlot:
        slot = await super().slot(tokens, sampling, owner)
        verify = slot.verify

        async def held(batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
            await self.gate.wait()
            return await verify(batch, on_exit)

        slot.verify = held  # type: ignore[method-assign]
        return slot


def held_cloud() -> tuple[foredraft.Cloud, asyncio.Event]:
    target = Held(clouds.truth, vocab_size=257, context=1 << 10, tokenizer_digest=clouds.TOKENIZER.digest)
    target.gate = asyncio.Event()
    return foredraft.Cloud(target, clouds.TOKENIZER), target.gate


async def until(true: Callable[[], bool]) -> None:
    """Wait for what must come; the test's own timeout ends what does not."""
    while not true():  # noqa: ASYNC110 - counters tell nobody
        await asyncio.sleep(0.001)


async def asks(cloud: foredraft.Cloud, gate: asyncio.Event, latest: Latest, count: int) -> list[SessionReport | None]:
    """So many asks, each while the one before is being answered or waits; then the passes go on."""
    counters, tasks = cloud.service.counters, []
    for number in range(count):
        tasks.append(asyncio.create_task(latest.ask(PROMPT, max_new_tokens=30)))
        begun = 1 if latest._let_finish else number + 1
        await until(partial(lambda begun: counters.active == 1 and counters.sessions == begun, begun))
    gate.set()
    said = list(await asyncio.gather(*tasks))
    await until(lambda: counters.active == 0)
    return said


async def test_a_newer_ask_ends_the_text_of_the_one_before_at_both_ends() -> None:
    cloud, gate = held_cloud()
    async with cloud, foredraft.connect(cloud, draft=clouds.drafter) as edge:
        said = await asks(cloud, gate, edge.latest(policy="cloud"), 4)
    assert said[:3] == [None] * 3
    assert said[3] is not None
    assert said[3].text == clouds.text_between(START, START + 30)


async def test_a_text_may_be_finished_first_and_then_the_newest_ask_has_its_turn() -> None:
    cloud, gate = held_cloud()
    async with cloud, foredraft.connect(cloud, draft=clouds.drafter) as edge:
        said = await asks(cloud, gate, edge.latest(policy="cloud", let_finish=True), 4)
        assert [one is not None for one in said] == [True, False, False, True]
        assert cloud.service.counters.sessions == 2


async def test_with_a_drafter_of_one_s_own_texts_follow_one_another() -> None:
    cloud, gate = held_cloud()
    async with cloud, foredraft.connect(cloud, draft=clouds.drafter()) as edge:
        said = await asks(cloud, gate, edge.latest(policy="sync"), 3)
    assert [one is not None for one in said] == [False, False, True]


async def test_whoever_gives_an_ask_up_ends_its_text() -> None:
    cloud, gate = held_cloud()
    async with cloud, foredraft.connect(cloud, draft=clouds.drafter) as edge:
        latest = edge.latest(policy="cloud")
        given_up = asyncio.create_task(latest.ask(PROMPT, max_new_tokens=200))
        await until(lambda: cloud.service.counters.active == 1)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        await until(lambda: cloud.service.counters.active == 0)
        gate.set()
        assert (await latest.ask(PROMPT, max_new_tokens=3)) is not None


async def test_errors_are_those_of_generate_and_the_next_ask_goes_well() -> None:
    async with clouds.cloud() as cloud, foredraft.connect(cloud, draft=clouds.drafter) as edge:
        latest = edge.latest()
        with pytest.raises(ConfigError, match="the prompt is empty"):
            await latest.ask("")
        with pytest.raises(RefusedError):
            await latest.ask(PROMPT, max_new_tokens=4, constraint=foredraft.constraint_of(regex="("))
        assert (await latest.ask(PROMPT, max_new_tokens=4)) is not None
