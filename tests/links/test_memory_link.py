"""The in-memory link behaves as a real one."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.errors import LinkClosedError, ProtocolError
from foredraft.links.framing import framed_bytes
from foredraft.links.memory import memory_link
from foredraft.protocol.messages import MAX_MESSAGE_BYTES, Chain, Close, Grow, Hello, Message, encode, pack


async def test_messages_arrive_in_order_and_are_not_the_same_objects() -> None:
    edge, cloud = memory_link()
    sent = [Close(number) for number in range(10)]
    for message in sent:
        await edge.send(message)
    received = [await cloud.receive() for _ in sent]
    assert received == sent
    assert all(one is not other for one, other in zip(received, sent, strict=True))


async def test_both_directions_count_payload_and_framing() -> None:
    edge, cloud = memory_link()
    message = Grow(1, (Chain(100, 2**63, pack([300] * 4)),))
    await edge.send(message)
    await cloud.receive()
    await cloud.send(message)
    await edge.receive()
    payload = len(encode(message))
    assert edge.bytes_sent == cloud.bytes_received == payload + 2 + 4
    assert cloud.bytes_sent == edge.bytes_received == payload + 2


async def test_a_full_link_makes_senders_wait_and_keeps_their_order() -> None:
    edge, cloud = memory_link(capacity=1)
    senders = [asyncio.create_task(edge.send(Close(number))) for number in range(5)]
    await asyncio.sleep(0)
    assert sum(sender.done() for sender in senders) == 1
    assert [await cloud.receive() for _ in range(5)] == [Close(number) for number in range(5)]
    await asyncio.gather(*senders)


async def test_posting_needs_room_and_nobody_in_front() -> None:
    edge, cloud = memory_link(capacity=1)
    assert edge.post(Close(0))
    assert not edge.post(Close(1))
    waiting = asyncio.create_task(edge.send(Close(1)))
    await asyncio.sleep(0)
    assert await cloud.receive() == Close(0)
    assert not edge.post(Close(2))
    assert await cloud.receive() == Close(1)
    await waiting
    assert edge.post(Close(2))
    assert edge.bytes_sent == 3 * framed_bytes(len(encode(Close(0))), masked=True)
    await edge.close()
    assert not edge.post(Close(3))


async def test_closing_delivers_what_was_sent_and_then_ends_both_sides() -> None:
    edge, cloud = memory_link()
    await edge.send(Close(1))
    await edge.close()
    await edge.close()
    assert await cloud.receive() == Close(1)
    for _ in range(2):
        with pytest.raises(LinkClosedError):
            await cloud.receive()
        with pytest.raises(LinkClosedError):
            await cloud.send(Close(2))
        with pytest.raises(LinkClosedError):
            await edge.receive()
        with pytest.raises(LinkClosedError):
            await edge.send(Close(2))


@pytest.mark.parametrize("cut", [False, True])
async def test_closing_wakes_whoever_waits(cut: bool) -> None:
    edge, cloud = memory_link(capacity=1)
    await edge.send(Close(1))
    waiting = [asyncio.create_task(edge.send(Close(2))), asyncio.create_task(edge.receive())]
    await asyncio.sleep(0)
    if cut:
        cloud.cut()
    else:
        await cloud.close()
    for task in waiting:
        with pytest.raises(LinkClosedError):
            await task


async def test_a_cut_loses_what_was_on_the_way() -> None:
    edge, cloud = memory_link()
    await edge.send(Close(1))
    await cloud.send(Close(2))
    edge.cut()
    for end in (edge, cloud):
        with pytest.raises(LinkClosedError):
            await end.receive()


async def test_garbage_is_a_protocol_error_and_the_link_goes_on() -> None:
    edge, cloud = memory_link()
    await edge.send_raw(b"\xc1 no message")
    await edge.send(Close(1))
    with pytest.raises(ProtocolError):
        await cloud.receive()
    assert await cloud.receive() == Close(1)


async def test_an_oversize_message_is_not_sent() -> None:
    edge, _ = memory_link()
    with pytest.raises(ProtocolError, match=str(MAX_MESSAGE_BYTES)):
        await edge.send(Hello(1, "x" * MAX_MESSAGE_BYTES))
    assert edge.bytes_sent == 0


@given(sizes=st.lists(st.sampled_from([0, 1, 125, 126, 127, 65535, 65536, 10**6])), masked=st.booleans())
def test_framing_is_what_the_websocket_standard_says(sizes: list[int], masked: bool) -> None:
    for size in sizes:
        header = 2 + (0 if size < 126 else 2 if size < 65536 else 8)
        assert framed_bytes(size, masked=masked) == size + header + 4 * masked


async def test_a_listener_is_handed_messages_until_it_wants_no_more() -> None:
    edge, cloud = memory_link()
    for number in range(4):
        await edge.send(Close(number))
    taken: list[Message] = []

    def take(message: Message) -> bool:
        taken.append(message)
        return len(taken) < 2

    await cloud.listen(take)
    assert taken == [Close(0), Close(1)]
    assert await cloud.receive() == Close(2)
    await edge.close()
    with pytest.raises(LinkClosedError):
        await cloud.listen(lambda message: True)
