"""An edge and a cloud in one room: scripted engines, the in-memory link, and everything that was said."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from foredraft.cloud.service import CloudService
from foredraft.edge.connections import Connect, Connections, Retry
from foredraft.edge.deadline import Deadline
from foredraft.edge.policy import Policy
from foredraft.edge.session import EdgeSession
from foredraft.engines.scripted import ScriptedDrafter, ScriptedSlot, ScriptedTarget
from foredraft.links.memory import MemoryLink, memory_link
from foredraft.policies import make_policy
from foredraft.protocol.messages import Chain, Grow, Message, Open
from foredraft.protocol.ports import Drafter, Guess, Link, Pass, Prediction, Target, Verdict
from foredraft.protocol.sampling import Sampling, StopRules

PROMPT = [1, 2, 3]


def truth(position: int) -> int:
    """The text: what comes at a position."""
    return position * 7919 % 1000 + 3


def text(length: int) -> list[int]:
    """The first ``length`` tokens after the prompt."""
    return [truth(position) for position in range(len(PROMPT), len(PROMPT) + length)]


def perfect(position: int, width: int) -> list[Guess]:
    """A drafter that is always right."""
    return [Guess(truth(position), 0.9)]


def hopeless(position: int, width: int) -> list[Guess]:
    """A drafter that is always wrong."""
    return [Guess(1, 0.9)]


def every_third_wrong(position: int, width: int) -> list[Guess]:
    return [Guess(1 if position % 3 == 0 else truth(position), 0.9)]


class SlowTarget(ScriptedTarget):
    """A pass takes a second, and its exits speak at its beginning."""

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> ScriptedSlot:
        return SlowSlot(self.card.layers, self.script, self.exit_script)


class SlowSlot(ScriptedSlot):
    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        verdict = await super().verify(batch, on_exit)
        await asyncio.sleep(1.0)
        return verdict


class Tap(Link):
    """The edge's end of a link, with all that went through it. Implements ``protocol.ports.Link``."""

    def __init__(self, link: MemoryLink) -> None:
        self.link = link
        self.up: list[Message] = []
        self.down: list[Message] = []

    async def send(self, message: Message) -> None:
        self.up.append(message)
        await self.link.send(message)

    def post(self, message: Message) -> bool:
        posted = self.link.post(message)
        if posted:
            self.up.append(message)
        return posted

    async def receive(self) -> Message:
        message = await self.link.receive()
        self.down.append(message)
        return message

    async def close(self) -> None:
        await self.link.close()

    @property
    def bytes_sent(self) -> int:
        return self.link.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self.link.bytes_received


def session_to(
    connect: Connect | Connections,
    policy: str | Policy = "sync",
    length: int = 10,
    *,
    drafter: Drafter | None = None,
    rules: StopRules | None = None,
    prompt: Sequence[int] = PROMPT,
    sampling: Sampling | None = None,
    retry: Retry | None = None,
    deadline: Deadline | None = None,
    logprobs: int | None = None,
) -> EdgeSession:
    """An edge's session to whatever answers there; its drafter is always right, unless it is another one."""
    return EdgeSession(
        prompt,
        connect=connect,
        drafter=drafter or ScriptedDrafter(perfect),
        policy=make_policy(policy) if isinstance(policy, str) else policy,
        sampling=sampling or Sampling(),
        rules=rules or StopRules(length),
        retry=retry or Retry(),
        deadline=deadline,
        logprobs=logprobs,
    )


@dataclass
class Room:
    """A service, and links to it."""

    service: CloudService
    taps: list[Tap] = field(default_factory=list)
    serving: list[asyncio.Task[None]] = field(default_factory=list)

    async def connect(self) -> Link:
        edge, cloud = memory_link()
        self.serving.append(asyncio.create_task(self.service.handle(cloud)))
        self.taps.append(Tap(edge))
        return self.taps[-1]

    def session(
        self,
        policy: str | Policy = "sync",
        length: int = 40,
        *,
        drafter: Drafter | None = None,
        rules: StopRules | None = None,
        prompt: Sequence[int] = PROMPT,
        sampling: Sampling | None = None,
        deadline: Deadline | None = None,
    ) -> EdgeSession:
        return session_to(
            self.connect,
            policy,
            length,
            drafter=drafter or ScriptedDrafter(every_third_wrong),
            rules=rules,
            prompt=prompt,
            sampling=sampling,
            retry=Retry(first_s=0.0),
            deadline=deadline,
        )

    def said(self, *kinds: type) -> list[Message]:
        """What went up and down of these kinds, per link, up first."""
        return [message for tap in self.taps for message in [*tap.up, *tap.down] if isinstance(message, kinds)]

    def chains(self, link: int | None = None) -> list[Chain]:
        """The drafts that went up, with the opening and after it, over one link or all."""
        taps = self.taps if link is None else [self.taps[link]]
        return [chain for tap in taps for one in tap.up if isinstance(one, Open | Grow) for chain in one.chains]

    async def left(self) -> None:
        """Wait until the cloud has let go of every link; nothing may be left running."""
        await asyncio.gather(*self.serving)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert self.service.counters.active == 0


def room(target: Target | None = None, **options: object) -> Room:
    return Room(CloudService(target or ScriptedTarget(truth), **options))  # type: ignore[arg-type]


async def collect(session: EdgeSession, on_tokens: Callable[[list[int]], None] | None = None) -> list[int]:
    """The session's tokens, to the end."""
    shown: list[int] = []
    async with aclosing(session.stream()) as stream:
        async for tokens in stream:
            shown += tokens
            if on_tokens is not None:
                on_tokens(tokens)
    return shown


@asynccontextmanager
async def watching(session: EdgeSession) -> AsyncIterator["asyncio.Queue[list[int]]"]:
    """Runs a session on the side; what it shows comes through the queue. Leaving stops it early."""
    shown: asyncio.Queue[list[int]] = asyncio.Queue()
    watcher = asyncio.create_task(collect(session, shown.put_nowait))
    try:
        yield shown
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
