"""Who says something never waits; what the link has no room for leaves in its turn."""

import asyncio

import pytest

from foredraft.errors import LinkClosedError
from foredraft.links.memory import MemoryLink, memory_link
from foredraft.protocol.messages import Close, Message
from foredraft.protocol.outbox import Outbox


def numbers(messages: list[Message]) -> list[int]:
    return [message.session for message in messages if isinstance(message, Close)]


async def received(link: MemoryLink, count: int) -> list[int]:
    return numbers([await link.receive() for _ in range(count)])


async def test_what_the_link_has_room_for_leaves_at_once() -> None:
    edge, cloud = memory_link()
    outbox = Outbox(edge)
    outbox.say(Close(1))
    assert not outbox.waiting
    assert await received(cloud, 1) == [1]


async def test_a_full_link_makes_messages_wait_in_order_and_tells_when_the_last_has_left() -> None:
    edge, cloud = memory_link(capacity=2)
    rooms: list[int] = []
    outbox = Outbox(edge, lambda: rooms.append(len(outbox.waiting)))
    for number in range(6):
        outbox.say(Close(number))
    assert numbers(list(outbox.waiting)) == [2, 3, 4, 5]
    running = asyncio.create_task(outbox.run())
    assert await received(cloud, 6) == [0, 1, 2, 3, 4, 5]
    outbox.end()
    await running
    assert rooms == [0]


async def test_nothing_overtakes_what_waits() -> None:
    edge, cloud = memory_link(capacity=1)
    outbox = Outbox(edge)
    outbox.say(Close(0))
    outbox.say(Close(1))
    assert await received(cloud, 1) == [0]  # there is room again, and the sender has not run yet
    outbox.say(Close(2))
    outbox.end()
    running = asyncio.create_task(outbox.run())
    assert await received(cloud, 2) == [1, 2]
    await running


async def test_a_closed_link_ends_the_sender_and_nobody_else() -> None:
    edge, _ = memory_link()
    await edge.close()
    outbox = Outbox(edge)
    outbox.say(Close(1))
    with pytest.raises(LinkClosedError):
        await outbox.run()
