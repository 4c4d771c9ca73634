"""Thirty-two sessions at once, whose texts are known, and whoever waits for how far they have come."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import foredraft
from foredraft.demo_models import bundled_pair
from foredraft.errors import RecordError
from foredraft.links import websocket
from foredraft.protocol.ports import Link
from foredraft.protocol.sampling import Sampling
from foredraft.text.tokenizer import Tokenizer

LENGTH: Final = 32
PROMPTS: Final = (
    "def read(path):\n    with open(path) as file:\n",
    "class Stack:\n    def push(self, item):\n        ",
    "import os\n\nfor name in os.listdir('.'):\n",
    "x = [",
)
SAMPLINGS: Final = (Sampling(), Sampling(temperature=0.8, seed=21))
POLICIES: Final = ("cloud", "sync", "seed", "ahead:patience_s=0.02")
QUICK: Final = foredraft.Retry(attempts=1000, first_s=0.01, most_s=0.2)
END_S: Final = 500.0
"""By then all have ended, on a machine that does much else: a bound for hangs, not a wait."""

_ANSWER_S: Final = 5.0
_HEARTBEAT_S: Final = 2.0


class Place:
    """A server as its edges see it: one that is silent for seconds is given up for another."""

    def __init__(self, url: str, tokenizer: Tokenizer | None) -> None:
        self.url = url
        self.tokenizer = tokenizer

    async def connect(self) -> Link:
        return await websocket.connect(self.url, timeout_s=_ANSWER_S, heartbeat_s=_HEARTBEAT_S)


@dataclass
class Written:
    """One session: what it was asked, what it has shown, and how it ended."""

    prompt: str
    sampling: Sampling
    policy: str
    shown: list[int] = field(default_factory=list)
    report: foredraft.SessionReport | None = None
    record: Path | None = None


class Crowd:
    """All sessions; ``shown`` is how many tokens they have shown together."""

    def __init__(self) -> None:
        self.sessions = [
            Written(prompt, sampling, policy) for prompt in PROMPTS for sampling in SAMPLINGS for policy in POLICIES
        ]
        self.shown = 0
        self.whole = LENGTH * len(self.sessions)
        self._grown = asyncio.Condition()
        self._over = False

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until it is so; it is looked at with each token that is shown, and when all is over."""
        async with self._grown:
            await self._grown.wait_for(lambda: ready() or self._over)

    async def until_shown(self, share: float) -> None:
        """Wait until this share of all tokens is shown."""
        await self.until(lambda: self.shown >= share * self.whole)

    async def write(self, edges: Sequence[foredraft.Edge], records: Path | None = None) -> None:
        """All texts, over these edges in turn; each is recorded where there is a folder for that."""
        for number, one in enumerate(self.sessions):
            one.record = None if records is None else records / f"{number}.rec"
        try:
            async with asyncio.timeout(END_S), asyncio.TaskGroup() as group:
                for number, one in enumerate(self.sessions):
                    group.create_task(self._write(edges[number % len(edges)], one))
        finally:
            async with self._grown:
                self._over = True
                self._grown.notify_all()

    async def _write(self, edge: foredraft.Edge, one: Written) -> None:
        asked = edge.generate(
            one.prompt,
            policy=one.policy,
            temperature=one.sampling.temperature,
            seed=one.sampling.seed,
            max_new_tokens=LENGTH,
            end_marks=False,
            record=one.record,
        )
        try:
            async for piece in asked:
                one.shown += piece.tokens
                async with self._grown:
                    self.shown += len(piece.tokens)
                    self._grown.notify_all()
        except RecordError:  # of a disk that is full, once the text is whole
            assert one.record is not None
        one.report = asked.report

    @property
    def reconnects(self) -> list[int]:
        """Of each session."""
        return [0 if one.report is None else one.report.reconnects for one in self.sessions]


@asynccontextmanager
async def edges_of(*urls: str, drafts: Sequence[str] = ("demo", "ngram")) -> AsyncIterator[list[foredraft.Edge]]:
    """An edge with each draft, which may use these servers; afterwards no task is left."""
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        tokenizer = Tokenizer.from_folder(bundled_pair().target)
        places = [Place(url, tokenizer) for url in urls]
        yield [
            await stack.enter_async_context(foredraft.connect(*places, draft=draft, retry=QUICK)) for draft in drafts
        ]
    if left := asyncio.all_tasks() - before:
        _, left = await asyncio.wait(left, timeout=_ANSWER_S)  # a ping of aiohttp's own ends with its connection
    assert not left, f"{left} are left"


def shares(seed: int, count: int) -> list[float]:
    """When trouble comes: shares of all tokens, in the middle of the texts."""
    luck = Random(seed)
    return sorted(luck.uniform(0.05, 0.8) for _ in range(count))
