"""How sessions ended, as operators are told."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

import foredraft
from foredraft.cloud import session_log
from foredraft.engines.scripted import ScriptedTarget
from foredraft.errors import RefusedError
from foredraft.links.memory import memory_link
from foredraft.protocol import messages
from foredraft.protocol.ports import Slot


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.__dict__["fields"] for record in caplog.records if record.name == session_log.log.name]


def cloud() -> foredraft.Cloud:
    return foredraft.Cloud(ScriptedTarget(lambda position: position % 100, vocab_size=100))


async def test_a_text_that_came_to_its_end_and_one_that_its_edge_left(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, session_log.log.name):
        async with cloud() as served, foredraft.connect(served, draft="ngram") as edge:
            await edge.generate([1, 2, 3], policy="sync", max_new_tokens=40, end_marks=False).finish()
            async with edge.generate([1], policy="cloud", max_new_tokens=1000, end_marks=False) as text:
                async for _ in text:
                    break
            await asyncio.sleep(0)
    whole, left = told(caplog)
    assert (whole["ended"], whole["prompt_tokens"], whole["new_tokens"]) == ("length", 3, 40)
    assert whole["passes"] >= 1
    assert whole["accepted"] <= whole["drafted"]
    assert (left["ended"], left["prompt_tokens"]) == (session_log.LEFT, 1)
    assert 1 <= left["new_tokens"] < 1000


@pytest.mark.parametrize(
    ("failure", "how", "code"),
    [
        (lambda: RuntimeError("oh"), session_log.FAILED, "internal"),
        (lambda: RefusedError("busy", "no room"), "refused", "busy"),
    ],
)
async def test_a_session_that_failed_or_was_refused_and_why(
    failure: Callable[[], Exception],
    how: str,
    code: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def no_slot(*_: object) -> Slot:
        raise failure()  # a new one: an error that lives on holds all that it came through

    served = cloud()
    monkeypatch.setattr(served.target, "slot", no_slot)
    retry = foredraft.Retry(attempts=1)
    with caplog.at_level(logging.INFO, session_log.log.name):
        async with served, foredraft.connect(served, draft="ngram", retry=retry) as edge:
            with pytest.raises(foredraft.ForedraftError):
                await edge.generate([1], policy="cloud", end_marks=False).finish()
    said = told(caplog)
    assert (said[0]["event"], said[0]["code"]) == ("refusal", code)
    assert (said[1]["event"], said[1]["ended"]) == ("session", how)


@pytest.mark.simulated
async def test_a_session_that_is_closed_in_the_breath_that_opened_it_has_its_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    edge, link = memory_link()
    with caplog.at_level(logging.INFO, session_log.log.name):
        serving = asyncio.create_task(cloud().service.handle(link))
        opening = messages.Open(1, messages.pack([1, 2]), 2, 0.0, 0, 1.0, 0, 9, (), (), messages.Steer(1, 1))
        for message in (messages.Hello(messages.PROTOCOL_VERSION), opening, messages.Close(1)):
            await edge.send(message)  # all of it is there when the service reads the first
        await asyncio.sleep(1.0)
        await edge.close()
        await serving
    (line,) = told(caplog)
    assert (line["session"], line["ended"], line["new_tokens"]) == ("1.1", session_log.LEFT, 0)


@pytest.mark.simulated
async def test_a_connection_that_is_given_up_during_its_last_words_ends_its_sender_as_well() -> None:
    edge, link = memory_link(capacity=1)
    serving = asyncio.create_task(cloud().service.handle(link))
    await edge.send(messages.Hello(messages.PROTOCOL_VERSION))
    for session in range(3):  # refused, and nobody reads it: the sender waits for room
        await edge.send(messages.Steer(session, 1))
    await edge.send_raw(b"\xc1")
    await asyncio.sleep(0.5)
    (sender,) = (task for task in asyncio.all_tasks() if task.get_name() == "cloud sender")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert sender.cancelled()  # and did not fail with an error of which nobody hears
    assert asyncio.all_tasks() == {asyncio.current_task()}
