"""The same code on asyncio, uvloop and in simulated time: the same text by the same messages."""

import asyncio

import pytest

from conftest import LOOPS
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.protocol.messages import Commit, Hint, Message, encode
from sessions.room import collect, every_third_wrong, room, text, truth


def unsteady(layer: int, position: int) -> tuple[int, float]:
    return (truth(position), 0.9) if (layer + position) % 4 else (2, 0.8)


async def exchange(policy: str) -> tuple[list[int], list[bytes], list[bytes]]:
    """A text, what went up, and what went down but for durations, which are the clock's."""
    here = room(ScriptedTarget(truth, exit_script=unsteady, exits=(2, 4)))
    session = here.session(policy, 40, drafter=ScriptedDrafter(every_third_wrong))
    shown = await collect(session)
    await here.left()
    return shown, [encode(m) for m in here.taps[0].up], [timeless(m) for m in here.taps[0].down]


def timeless(message: Message) -> bytes:
    if isinstance(message, Commit):
        m = message
        message = Commit(m.session, m.position, m.tokens, m.drafted, m.accepted, 0.0, 0.0, 0.0, m.finish)
    if isinstance(message, Hint):
        message = Hint(message.session, message.position, message.layer, message.tokens, message.confidence, 0.0)
    return encode(message)


@pytest.mark.parametrize("policy", ["cloud", "sync", "seed"])
def test_every_loop_sees_the_same_exchange(policy: str) -> None:
    seen = {}
    for name, factory in LOOPS.items():
        with asyncio.Runner(loop_factory=factory) as runner:
            seen[name] = runner.run(exchange(policy))
    assert seen["asyncio"][0] == text(40)
    assert len(seen["asyncio"][1]) >= 3
    assert seen["uvloop"] == seen["asyncio"]
    assert seen["simulated"] == seen["asyncio"]
