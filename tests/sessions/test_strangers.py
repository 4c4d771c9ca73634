"""Whatever a peer sends: a clear refusal, and the other side goes on."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foredraft.edge.connections import Retry
from foredraft.engines.scripted import ScriptedSlot, ScriptedTarget
from foredraft.errors import ForedraftError, LinkClosedError, ProtocolError, RefusedError, UnreachableError
from foredraft.keys import Keys
from foredraft.links.memory import MemoryLink, memory_link
from foredraft.protocol import messages
from foredraft.protocol.anchor import ORIGIN
from foredraft.protocol.messages import (
    Chain,
    Close,
    Commit,
    Drain,
    Grow,
    Hello,
    Hint,
    Message,
    Open,
    Propose,
    Proposed,
    Ready,
    Refused,
    Steer,
    ToEdge,
    pack,
    pack_weights,
    unpack,
)
from foredraft.protocol.ports import Link
from foredraft.protocol.sampling import Sampling
from foredraft_sim.loop.event_loop import SimLoop
from protocol.test_messages import MESSAGES
from sessions.room import PROMPT, Room, collect, room, session_to, text, truth

HELLO = Hello(messages.PROTOCOL_VERSION)
OPEN = Open(1, pack(PROMPT), 3, 0.0, 0, 1.0, 0, 10, (), (), Steer(1, 1))
TIP = ORIGIN.after(PROMPT)


def below(position: int, hash: int, tokens: bytes) -> Grow:
    """One chain."""
    return Grow(1, (Chain(position, hash, tokens),))


GROW = below(TIP.position, TIP.hash, pack(text(2)))
ALONE = Steer(1, 2, alone_until=100)
NAN = float("nan")


@asynccontextmanager
async def stranger(here: Room) -> AsyncIterator[MemoryLink]:
    """A link to the service, without an edge at it; afterwards an honest edge must be served as ever."""
    edge, cloud = memory_link(10_000)
    serving = asyncio.create_task(here.service.handle(cloud))
    try:
        yield edge
    finally:
        await edge.close()
        await serving
        assert await collect(here.session("sync", 10)) == text(10)
        await here.left()


async def answers(link: MemoryLink, until: type | None = None) -> list[Message]:
    """What the cloud says until such a message, or until it closes."""
    heard: list[Message] = []
    try:
        while until is None or not heard or not isinstance(heard[-1], until):
            heard.append(await link.receive())
    except LinkClosedError:
        pass
    return heard


@pytest.mark.parametrize("first", [OPEN, GROW, ALONE, Close(1), Drain(), Commit(1, 3, b"", 0, 0, 0, 0, 0)], ids=repr)
async def test_whatever_comes_before_hello_is_refused_and_the_link_closed(first: Message) -> None:
    async with stranger(room()) as link:
        await link.send(first)
        (refused,) = await answers(link)
        assert isinstance(refused, Refused)
        assert refused.code == messages.INVALID
        assert "Hello comes first" in refused.reason


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x91\x63", b"\x93\x00\x01\xa1\x80", b"\x00" * 1000], ids=repr)
@pytest.mark.parametrize("handshake", [False, True])
async def test_garbage_is_refused_and_the_link_closed(garbage: bytes, handshake: bool) -> None:
    async with stranger(room()) as link:
        if handshake:
            await link.send(HELLO)
            await link.send(OPEN)
        await link.send_raw(garbage)
        refused = (await answers(link))[-1]
        assert isinstance(refused, Refused)
        assert (refused.code, refused.retry_after_s) == (messages.INVALID, None)
        assert "not a message of protocol" in refused.reason


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        (GROW, messages.INVALID, "session 1 is not open"),
        (ALONE, messages.INVALID, "session 1 is not open"),
        (Drain(), messages.INVALID, "Drain is not for the cloud"),
        (Hint(1, 3, 1, b"", 1.0, 0.0), messages.INVALID, "Hint is not for the cloud"),
    ],
    ids=repr,
)
async def test_a_message_at_the_wrong_time_is_refused_and_the_link_stays(
    message: Message, code: str, says: str
) -> None:
    async with stranger(room()) as link:
        await link.send(HELLO)
        assert isinstance(await link.receive(), Ready)
        await link.send(message)
        refused = await link.receive()
        assert isinstance(refused, Refused)
        assert refused.code == code
        assert says in refused.reason
        await link.send(OPEN)
        await link.send(ALONE)
        last = (await answers(link, Commit))[-1]
        assert isinstance(last, Commit)
        assert unpack(last.tokens) == text(1)


def opened(**changes: object) -> Open:
    fields = {name: getattr(OPEN, name) for name in OPEN.__struct_fields__}
    return Open(**{**fields, **changes})


@pytest.mark.parametrize(
    ("bad", "code", "says"),
    [
        (opened(tokens=b""), messages.INVALID, "a text of 0 tokens"),
        (opened(tokens=b"\x80"), messages.INVALID, "cut off"),
        (opened(tokens=pack([5, 70_000, 6])), messages.INVALID, "token id 70000 is outside the vocabulary of 65536"),
        (opened(start=0), messages.INVALID, "generation starts at 0"),
        (opened(start=4), messages.INVALID, "generation starts at 4"),
        (opened(tokens=pack([5] * 50), start=50), messages.TOO_LONG, "no room in the context of 50"),
        (opened(tokens=pack([5] * 51)), messages.TOO_LONG, "no room in the context of 50"),
        (opened(temperature=NAN), messages.INVALID, "temperature"),
        (opened(temperature=-1.0), messages.INVALID, "temperature"),
        (opened(top_p=NAN), messages.INVALID, "top_p"),
        (opened(top_p=0.0), messages.INVALID, "top_p"),
        (opened(seed=1 << 63), messages.INVALID, "seed"),
        (opened(max_new_tokens=0), messages.INVALID, "max_new_tokens"),
        (opened(stop_strings=("",)), messages.INVALID, "stop string must not be empty"),
        (opened(stop_tokens=tuple(range(65))), messages.INVALID, "at most 64 stop tokens"),
        (opened(stop_strings=("x" * 1025,)), messages.INVALID, "1024 characters at most"),
        (opened(stop_strings=("x",)), messages.INVALID, "no tokenizer, so no stop strings"),
        (opened(steer=Steer(1, 1, exits=(3,))), messages.INVALID, "no exit after layer 3"),
        (opened(steer=Steer(1, 1, patience_s=61.0)), messages.INVALID, "patience_s must be between 0 and 60"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_open_that_makes_no_sense_is_refused_by_name(bad: Open, code: str, says: str) -> None:
    async with stranger(room(ScriptedTarget(truth, context=50))) as link:
        await link.send(HELLO)
        await link.send(bad)
        await link.receive()
        refused = await link.receive()
        assert isinstance(refused, Refused)
        assert (refused.session, refused.code, refused.retry_after_s) == (1, code, None)
        assert says in refused.reason


@pytest.mark.parametrize(
    ("bad", "code", "says"),
    [
        (below(1 << 60, 0, pack([5])), messages.UNKNOWN_ANCHOR, "nothing known at position"),
        (below(TIP.position, TIP.hash, pack([70_000])), messages.INVALID, "outside the vocabulary"),
        (below(TIP.position, TIP.hash, b"\xff"), messages.INVALID, "cut off"),
        (below(TIP.position, TIP.hash, pack([5] * 65)), messages.INVALID, "a chain of 65 tokens; at most 64"),
        (Steer(1, 9, exits=(1,)), messages.INVALID, "no exit after layer 1"),
        (Steer(1, 9, patience_s=1e6), messages.INVALID, "patience_s"),
    ],
    ids=repr,
)
async def test_a_bad_message_in_a_session_is_refused_and_the_session_goes_on(
    bad: Message, code: str, says: str
) -> None:
    async with stranger(room()) as link:
        for message in (HELLO, OPEN, bad, Steer(1, 10, alone_until=100)):
            await link.send(message)
        heard = await answers_to_the_end(link)
        refused = [message for message in heard if isinstance(message, Refused)]
        assert [message.code for message in refused] == [code]
        assert says in refused[0].reason
        assert text_in(heard) == text(10)


def proposed(tokens: bytes, weights: bytes) -> Propose:
    """What a draft may think of the first token."""
    return Propose(1, (Proposed(TIP.position, TIP.hash, tokens, weights),))


GOOD = proposed(pack([5, 6]), pack_weights([65535, 1]))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (proposed(pack([5, 6]), pack_weights([1])), "2 proposed tokens, 1 weights"),
        (proposed(pack([5, 5]), pack_weights([1, 2])), "2 proposed tokens, 2 weights"),
        (proposed(pack([70_000]), pack_weights([1])), "outside the vocabulary"),
        (proposed(b"\xff", pack_weights([1])), "cut off"),
        (proposed(pack([5]), b"\x00\x00"), "weights are of 16 bits each, and above 0"),
        (proposed(pack([5]), b"\x01"), "weights are of 16 bits each, and above 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_proposal_that_makes_no_sense_is_refused_with_the_text_before_it_and_alone_after_it(
    bad: Propose, says: str
) -> None:
    target = ScriptedTarget(truth, rejects=True)
    warm, alone = opened(temperature=0.8), Steer(1, 10, alone_until=100)
    async with stranger(room(target)) as link:
        for message in (HELLO, GOOD, warm, bad, alone):
            await link.send(message)
        heard = await answers_to_the_end(link)
        assert [says in message.reason for message in heard if isinstance(message, Refused)] == [True]
        assert text_in(heard) == text(10)
    async with stranger(room(target)) as link:
        for message in (HELLO, bad, warm):
            await link.send(message)
        refused = (await answers(link, Refused))[-1]
        assert isinstance(refused, Refused)
        assert (refused.session, refused.code) == (1, messages.INVALID)
        assert says in refused.reason


async def answers_to_the_end(link: MemoryLink) -> list[Message]:
    heard: list[Message] = []
    while not (heard and isinstance(heard[-1], Commit) and heard[-1].finish):
        heard.append(await link.receive())
    return heard


def text_in(heard: list[Message]) -> list[int]:
    return [token for message in heard if isinstance(message, Commit) for token in unpack(message.tokens)]


async def test_huge_orders_are_harmless() -> None:
    huge = (1 << 62) - 1
    async with stranger(room()) as link:
        for message in (HELLO, OPEN, Steer(1, huge, huge, 0.0, huge, huge, (), 0.0, huge)):
            await link.send(message)
        assert text_in(await answers_to_the_end(link)) == text(10)


async def test_orders_that_name_an_exit_twice_and_out_of_order_ask_for_it_once() -> None:
    target = ScriptedTarget(truth, exit_script=lambda layer, position: (truth(position), 1.0), exits=(2, 4))
    async with stranger(room(target)) as link:
        for message in (HELLO, opened(max_new_tokens=1, steer=Steer(1, 1, 100, exits=(4, 2, 4), threshold=0.0))):
            await link.send(message)
        assert [m.layer for m in await answers_to_the_end(link) if isinstance(m, Hint)] == [2, 4]


async def test_repeated_and_late_messages_change_nothing() -> None:
    async with stranger(room()) as link:
        later = opened(session=2, steer=Steer(2, 1, alone_until=100))
        for message in (HELLO, OPEN, OPEN, GROW, GROW, ALONE, ALONE, Steer(1, 1)):
            await link.send(message)
        assert text_in(await answers_to_the_end(link)) == text(10)
        for late in (Close(1), Close(1), GROW, ALONE, OPEN, later, OPEN, GROW, ALONE, Close(1), later):
            await link.send(late)
        heard = await answers_to_the_end(link)
        assert {message.session for message in heard if isinstance(message, Commit)} == {2}
        assert not [message for message in heard if isinstance(message, Refused)]
        assert text_in(heard) == text(10)


async def test_drafts_for_a_text_that_was_refused_need_no_answer_of_their_own() -> None:
    async with stranger(room()) as link:
        for message in (HELLO, opened(start=0), GROW, ALONE, Close(1), Steer(2, 1)):
            await link.send(message)
        heard = [await link.receive() for _ in range(3)]
        refused = [message for message in heard if isinstance(message, Refused)]
        assert [(message.session, message.code) for message in refused] == [
            (1, messages.INVALID),
            (2, messages.INVALID),
        ]


async def test_a_session_that_is_closed_at_once_leaves_no_slot_taken() -> None:
    class Counting(ScriptedTarget):
        slots = 0

        async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> ScriptedSlot:
            slot = await super().slot(tokens, sampling, owner)
            self.slots += 1

            def give_up() -> None:
                self.slots -= 1

            slot.close = give_up  # type: ignore[method-assign]
            return slot

    target = Counting(truth)
    async with stranger(room(target)) as link:
        for message in (HELLO, OPEN, Close(1), opened(session=2), opened(session=3)):
            await link.send(message)
    assert target.slots == 0


@settings(max_examples=40)
@given(st.lists(MESSAGES | st.sampled_from([OPEN, GROW, ALONE, Close(1), opened(session=2)]), max_size=12))
def test_the_service_survives_any_messages_in_any_order(sequence: list[Message]) -> None:
    async def main() -> None:
        async with stranger(room()) as link:
            await link.send(HELLO)
            for message in sequence:
                await link.send(message)
            await asyncio.sleep(1.0)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main())


async def test_an_api_key_is_asked_for() -> None:
    here = room(keys=Keys.of("geheim"))
    edge, cloud = memory_link()
    serving = asyncio.create_task(here.service.handle(cloud))
    await edge.send(Hello(messages.PROTOCOL_VERSION, "gehéim"))
    (refused,) = await answers(edge)
    assert isinstance(refused, Refused)
    assert refused.code == messages.UNAUTHORIZED
    await serving


async def test_another_protocol_version_is_refused() -> None:
    async with stranger(room()) as link:
        await link.send(Hello(1))
        (refused,) = await answers(link)
        assert isinstance(refused, Refused)
        assert (refused.code, refused.reason) == (messages.VERSION, "protocol 1; this server speaks 2")


@pytest.mark.simulated
async def test_a_peer_that_says_nothing_is_refused_in_time() -> None:
    async with stranger(room()) as link:
        (refused,) = await answers(link)
        assert isinstance(refused, Refused)
        assert "no Hello within" in refused.reason


# A hostile cloud

READY = Ready(messages.PROTOCOL_VERSION, "m", "scripted", 2000, 1000, 8, (4,), 64, 8, 8, ())
COMMIT = Commit(1, 3, pack(text(2)), 0, 0, 0.0, 0.0, 0.0)


async def against(script: list[ToEdge], *, policy: str = "seed") -> list[int]:
    """What an edge shows when a cloud says this after its Open, and then nothing but silence."""
    links: list[MemoryLink] = []

    async def cloud(link: MemoryLink) -> None:
        await link.receive()
        await link.send(READY)
        await link.receive()
        for message in script:
            await link.send(message)
        while True:
            await link.receive()

    tasks: list[asyncio.Task[None]] = []

    async def connect() -> Link:
        edge, other = memory_link()
        links.append(other)
        tasks.append(asyncio.create_task(cloud(other)))
        return edge

    session = session_to(connect, policy, retry=Retry(attempts=1, first_s=0.0))
    try:
        async with asyncio.timeout(30.0):  # of simulated time
            return await collect(session)
    finally:
        await asyncio.gather(*tasks, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.simulated
@pytest.mark.parametrize(
    ("script", "error", "says"),
    [
        ([COMMIT, Commit(1, 3, pack([1, 1]), 0, 0, 0, 0, 0)], ProtocolError, "contradicts the committed text"),
        ([COMMIT, Commit(1, 0, pack([9]), 0, 0, 0, 0, 0)], ProtocolError, "contradicts the committed text"),
        ([Commit(1, 3, pack([2000]), 0, 0, 0, 0, 0)], ProtocolError, "token id 2000 is outside"),
        ([Commit(1, 3, pack([5] * 11), 0, 0, 0, 0, 0)], ProtocolError, "the text ends at 13"),
        ([Commit(1, 3, b"\xff", 0, 0, 0, 0, 0)], ProtocolError, "cut off"),
        ([Commit(1, 9 + n, pack([5]), 0, 0, 0, 0, 0) for n in range(300)], ProtocolError, "commits beyond position 3"),
        ([Hint(1, 3, 5, pack([5]), 1.0, 0.0)], ProtocolError, "a hint after layer 5"),
        ([Hint(1, 3, 4, pack([2000]), 1.0, 0.0)], ProtocolError, "token id 2000 is outside"),
        ([HELLO], ProtocolError, "Hello is not for an edge"),
        ([Refused(1, messages.INTERNAL, "the target failed")], RefusedError, "the target failed"),
        ([Refused(0, messages.INVALID, "what was that")], RefusedError, "what was that"),
        ([Refused(0, messages.BUSY, "no place", 0.5)], RefusedError, "no place"),
        ([Drain(0.5)], RefusedError, "going away"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_edge_says_what_its_cloud_did_wrong(script: list[ToEdge], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        await against(script)


@pytest.mark.simulated
async def test_hints_without_end_do_not_outgrow_the_tree() -> None:
    flood: list[ToEdge] = [Hint(1, 3, 4, pack([n, *range(1000)]), 1.0, 0.0) for n in range(100)]
    finish = Commit(1, 3, pack(text(10)), 0, 0, 0, 0, 0, "length")
    assert await against([*flood, finish]) == text(10)


@pytest.mark.simulated
@pytest.mark.parametrize("policy", ["sync", "seed", "ahead"])
@pytest.mark.parametrize("code", [messages.FULL, messages.UNKNOWN_ANCHOR])
async def test_a_cloud_that_refuses_every_chain_is_not_stormed(policy: str, code: str) -> None:
    edge, cloud = memory_link()
    session = session_to(lambda: _ready(edge), policy, 1000)
    running = asyncio.create_task(collect(session))
    await cloud.receive()
    await cloud.send(READY)
    await cloud.receive()
    heard: list[Message] = []
    while True:
        try:
            async with asyncio.timeout(5.0):
                heard.append(await cloud.receive())
        except TimeoutError:
            break
        if isinstance(grow := heard[-1], Grow):
            await cloud.send(Refused(1, code, "no", 0.0, grow.chains[0].position, grow.chains[0].hash))
    assert len(heard) < 200
    # In the end it asks the cloud to decode alone (or always did).
    assert session.state.waiting_on_cloud is False
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def _ready(link: MemoryLink) -> Link:
    return link


@pytest.mark.simulated
async def test_a_cloud_that_never_answers_hello_is_given_up() -> None:
    links: list[MemoryLink] = []

    async def connect() -> Link:
        edge, cloud = memory_link()
        links.append(cloud)
        return edge

    session = session_to(connect, retry=Retry(attempts=2, first_s=0.1))
    with pytest.raises(UnreachableError, match="gave up after 2 retries: the cloud did not answer Hello"):
        await collect(session)
    assert len(links) == 3


@settings(max_examples=60)
@given(st.lists(MESSAGES | st.sampled_from([COMMIT, READY]), max_size=10))
def test_an_edge_survives_any_messages_in_any_order(sequence: list[Message]) -> None:
    async def main() -> None:
        try:
            shown = await against(sequence)  # type: ignore[arg-type]
        except (ForedraftError, TimeoutError):
            return
        assert len(shown) <= 10

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main())
