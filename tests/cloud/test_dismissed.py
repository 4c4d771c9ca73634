"""Connections that the service ends: nothing runs for them any more, also where their edge does not read."""

import asyncio
from pathlib import Path

import pytest

from foredraft.cloud.service import CloudService
from foredraft.keys import Key, KeyFile, hash_of, with_key
from foredraft.links.memory import memory_link
from foredraft.protocol.messages import (
    PROTOCOL_VERSION,
    UNAUTHORIZED,
    Hello,
    Message,
    Open,
    Ready,
    Refused,
    Steer,
    pack,
)
from sessions.room import SlowTarget, truth


def opening(session: int) -> Open:
    steer = Steer(session, 1, alone_until=1 << 40)
    return Open(session, pack([1, 2, 3]), 3, 0.0, 0, 1.0, 0, 1000, (), (), steer)


@pytest.mark.simulated
async def test_nothing_runs_for_a_revoked_key_although_its_edge_reads_nothing(tmp_path: Path) -> None:
    (path := tmp_path / "keys.toml").write_text(with_key("", Key(name="ours", hash=hash_of("secret"))))
    keys = KeyFile(path)
    service = CloudService(SlowTarget(truth), keys=keys)
    edge, link = memory_link(capacity=1)
    serving = asyncio.create_task(service.handle(link))
    await edge.send(Hello(PROTOCOL_VERSION, "secret"))
    await edge.send(opening(1))
    await asyncio.sleep(5.5)  # a second a pass
    assert service.counters.active == 1
    path.write_text("")
    assert keys.reload()
    service.turn_out()
    await asyncio.sleep(5.0)
    assert service.counters.active == 0
    passes = service.counters.passes
    await edge.send(opening(2))  # nor does anything begin
    await asyncio.sleep(5.0)
    heard: list[Message] = []
    while not heard or not isinstance(heard[-1], Refused):
        heard.append(await edge.receive())
    assert isinstance(heard[0], Ready)
    assert heard[-1] == Refused(0, UNAUTHORIZED, "the API key was revoked or has expired")
    await serving
    assert service.counters.passes == passes <= 6
