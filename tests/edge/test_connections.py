"""Connections are kept between texts: fewer round trips to a first token, and nothing else changes."""

import asyncio
from dataclasses import dataclass, field

import pytest

from foredraft.cloud.service import CloudService
from foredraft.edge.connections import Connections, Retry
from foredraft.edge.session import EdgeSession
from foredraft.engines.scripted import ScriptedTarget
from foredraft.errors import LinkClosedError, RefusedError, UnreachableError
from foredraft.links.memory import MemoryLink, memory_link
from foredraft.protocol.messages import Close, Hello, Message, Open, Refused
from foredraft.protocol.ports import Link
from foredraft.protocol.sampling import StopRules
from sessions.room import Tap, session_to, text, truth

pytestmark = pytest.mark.simulated


@dataclass
class Cloud:
    """A service that edges connect to, one link after another."""

    service: CloudService = field(default_factory=lambda: CloudService(ScriptedTarget(truth)))
    links: list[Tap] = field(default_factory=list)
    away: bool = False
    serving: list[asyncio.Task[None]] = field(default_factory=list)

    async def connect(self) -> Link:
        if self.away:
            raise UnreachableError("nobody there")
        edge, cloud = memory_link()
        self.serving.append(asyncio.create_task(self.service.handle(cloud)))
        self.links.append(Tap(edge))
        return self.links[-1]

    def session(self, connections: Connections, length: int = 20) -> EdgeSession:
        return session_to(connections, "sync", length)

    def make_room(self) -> bool:
        return self.service.make_room([connection.link for connection in self.service._connections])

    async def text(self, connections: Connections, length: int = 20) -> list[int]:
        session = self.session(connections, length)
        await session.run()
        return session.report().tokens


def said(link: Tap) -> list[type[Message]]:
    """What the edge said, but for drafts and orders."""
    return [type(message) for message in link.up if isinstance(message, Hello | Open | Close)]


def cut(link: Tap) -> None:
    assert isinstance(link.link, MemoryLink)
    link.link.cut()


async def settled() -> None:
    """Let everybody who has something to do do it."""
    await asyncio.sleep(0.01)


async def test_texts_one_after_another_share_a_connection_and_have_ascending_numbers() -> None:
    cloud = Cloud()
    connections = Connections(cloud.connect, most_idle=1)
    assert [await cloud.text(connections) for _ in range(3)] == [text(20)] * 3
    assert len(cloud.links) == 1
    assert said(cloud.links[0]) == [Hello, *([Open, Close] * 3)]
    assert [message.session for message in cloud.links[0].up if isinstance(message, Open)] == [1, 2, 3]
    await connections.close()


async def test_texts_at_the_same_time_have_a_connection_each_and_as_many_stay_as_are_wanted() -> None:
    cloud = Cloud()
    connections = Connections(cloud.connect, most_idle=2)
    texts = await asyncio.gather(*(cloud.text(connections) for _ in range(5)))
    assert texts == [text(20)] * 5
    assert len(cloud.links) == 5
    await settled()
    assert sum(not task.done() for task in cloud.serving) == 2
    await connections.close()
    await asyncio.wait_for(asyncio.gather(*cloud.serving), 5)


async def test_open_travels_with_hello_where_the_cloud_is_known() -> None:
    cloud = Cloud()
    connections = Connections(cloud.connect)
    connections.expected = cloud.service.admit(Hello(2))
    heard_before_open: list[int] = []
    link = await cloud.connect()
    assert isinstance(link, Tap)

    async def the_link() -> Link:
        return link

    connections._connect = the_link
    sent = link.send

    async def noting(message: Message) -> None:
        if isinstance(message, Open):
            heard_before_open.append(len(link.down))
        await sent(message)

    link.send = noting  # type: ignore[method-assign]
    assert await cloud.text(connections) == text(20)
    assert heard_before_open == [0]
    assert said(link)[:2] == [Hello, Open]


async def test_a_cloud_that_serves_something_else_than_expected_is_opened_anew_on_the_same_connection() -> None:
    cloud = Cloud(CloudService(ScriptedTarget(truth, max_pass_nodes=4)))
    other = CloudService(ScriptedTarget(truth, max_pass_nodes=8))
    connections = Connections(cloud.connect)
    connections.expected = other.admit(Hello(2))
    assert await cloud.text(connections) == text(20)
    assert said(cloud.links[0])[:3] == [Hello, Open, Open]
    assert connections.expected is not None
    assert connections.expected.max_pass_nodes == 4


async def test_a_connection_that_is_lost_while_nobody_needs_it_is_replaced_in_the_background() -> None:
    cloud = Cloud()
    connections = Connections(cloud.connect, most_idle=1)
    await cloud.text(connections)
    cut(cloud.links[0])
    await asyncio.sleep(1.0)
    assert said(cloud.links[1]) == [Hello]
    assert await cloud.text(connections) == text(20)
    assert len(cloud.links) == 2
    await connections.close()


async def test_the_replacement_waits_for_a_cloud_that_is_away_and_gives_up_in_the_end() -> None:
    cloud = Cloud()
    connections = Connections(cloud.connect, most_idle=1, retry=Retry(attempts=6, first_s=1.0))
    await cloud.text(connections)
    cloud.away = True
    cut(cloud.links[0])
    await asyncio.sleep(10.0)
    cloud.away = False
    await asyncio.sleep(10.0)
    assert len(cloud.links) == 2
    cloud.away = True
    cut(cloud.links[1])
    await asyncio.sleep(100.0)
    cloud.away = False
    await asyncio.sleep(100.0)
    assert len(cloud.links) == 2
    assert await cloud.text(connections) == text(20)
    await connections.close()


async def test_a_full_server_takes_the_place_of_an_idle_connection_which_stays_away_until_it_is_needed() -> None:
    cloud = Cloud()
    connections = Connections(cloud.connect, most_idle=1)
    await cloud.text(connections)
    await settled()
    assert cloud.make_room()
    await asyncio.sleep(60.0)
    assert [type(message) for message in cloud.links[0].down][-1] is Refused
    assert len(cloud.links) == 1
    assert not cloud.make_room()
    assert await cloud.text(connections) == text(20)
    await connections.close()


async def test_a_connection_with_a_text_on_it_is_no_room_for_others() -> None:
    cloud = Cloud()
    connections = Connections(cloud.connect, most_idle=1)
    stream = cloud.session(connections).stream()
    await anext(stream)
    assert not cloud.make_room()
    await stream.aclose()
    await connections.close()


async def test_a_drained_server_is_met_again_when_it_said_that_it_is_back() -> None:
    cloud = Cloud()
    connections = Connections(cloud.connect, most_idle=1)
    await cloud.text(connections)
    await settled()
    cloud.service.drain(retry_after_s=30.0)
    await asyncio.sleep(29.0)
    assert len(cloud.links) == 1
    await asyncio.sleep(2.0)
    assert len(cloud.links) == 2
    await connections.close()


async def test_a_cloud_that_never_answers_hello_is_met_in_vain() -> None:
    links: list[MemoryLink] = []

    async def connect() -> Link:
        edge, cloud = memory_link()
        links.append(cloud)
        return edge

    connections = Connections(connect, retry=Retry(attempts=1))
    with pytest.raises(UnreachableError, match="gave up after 1 retries: the cloud did not answer Hello"):
        await connections.meet()
    for cloud in links:
        assert isinstance(await cloud.receive(), Hello)
        with pytest.raises(LinkClosedError):
            await cloud.receive()


async def test_who_is_cancelled_while_it_takes_a_connection_leaves_none_open() -> None:
    cloud = Cloud()
    connections = Connections(cloud.connect, most_idle=1)
    await cloud.text(connections)
    await settled()
    taking = asyncio.create_task(connections.take())
    await asyncio.sleep(0)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    assert taking.cancelled()
    await asyncio.gather(*cloud.serving)
    await connections.close()


async def test_who_gives_a_text_up_ends_it_in_the_cloud_and_keeps_the_connection() -> None:
    cloud = Cloud()
    connections = Connections(cloud.connect, most_idle=1)
    stream = cloud.session(connections, 10_000).stream()
    await anext(stream)
    await stream.aclose()
    await settled()
    assert cloud.service.counters.active == 0
    assert await cloud.text(connections) == text(20)
    assert len(cloud.links) == 1
    await connections.close()


async def test_a_text_that_was_refused_gives_no_connection_back() -> None:
    cloud = Cloud()
    connections = Connections(cloud.connect, most_idle=1)
    session = session_to(connections, rules=StopRules(max_new_tokens=5, strings=("no tokenizer here",)))
    with pytest.raises(RefusedError, match="no stop strings"):
        await session.run()
    assert await cloud.text(connections) == text(20)
    assert len(cloud.links) == 2
    await connections.close()


async def test_a_report_counts_the_bytes_of_its_own_text_alone() -> None:
    cloud = Cloud()
    connections = Connections(cloud.connect, most_idle=1)
    reports = []
    for _ in range(3):
        session = cloud.session(connections)
        await session.run()
        reports.append(session.report())
    assert reports[1].bytes_up == reports[2].bytes_up < reports[0].bytes_up
    assert reports[1].bytes_down == reports[2].bytes_down < reports[0].bytes_down
    await connections.close()


async def test_meeting_a_cloud_tells_what_it_serves_and_keeps_the_connection() -> None:
    cloud = Cloud()
    connections = Connections(cloud.connect, most_idle=1)
    ready = await connections.meet()
    assert ready.vocab_size == cloud.service.shared.target.card.vocab_size
    await cloud.text(connections)
    assert len(cloud.links) == 1
    await connections.close()
