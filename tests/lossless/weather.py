"""A link in bad weather: late commits, hints that nobody gave, cuts in the middle of the text."""

import asyncio
import random
from collections import deque

from foredraft.edge.connections import Connect
from foredraft.errors import LinkClosedError
from foredraft.protocol import messages
from foredraft.protocol.messages import Commit, Hint, Message
from foredraft.protocol.ports import Link


class Weather:
    """Makes links, one after the other, for one session. Everything is drawn from ``seed``.

    ``late_s``: commits come up to so much late. ``lies``: after each commit comes a hint of made-up tokens.
    ``cut_every``: a link breaks once so many commits have come over it; 0 never.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        seed: int = 0,
        late_s: float = 0.0,
        lies: int = 0,
        cut_every: int = 0,
    ) -> None:
        self._connect = connect
        self.random = random.Random(seed)
        self.late_s, self.lies, self.cut_every = late_s, lies, cut_every
        self.cuts = self.lied = 0

    async def connect(self) -> Link:
        return _Rough(await self._connect(), self)


class _Rough(Link):
    """The edge's end of one link."""

    def __init__(self, link: Link, weather: Weather) -> None:
        self._link, self._weather = link, weather
        self._made_up: deque[Hint] = deque()
        self._commits = 0

    @property
    def bytes_sent(self) -> int:
        return self._link.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self._link.bytes_received

    async def send(self, message: Message) -> None:
        await self._link.send(message)

    def post(self, message: Message) -> bool:
        return self._link.post(message)

    async def receive(self) -> Message:
        if self._made_up:
            return self._made_up.popleft()
        message = await self._link.receive()
        if isinstance(message, Commit):
            await self._rain(message)
        return message

    async def _rain(self, commit: Commit) -> None:
        weather = self._weather
        self._commits += 1
        if weather.cut_every and self._commits > weather.cut_every:  # this commit is lost on the way
            weather.cuts += 1
            await self._link.close()
            raise LinkClosedError("cut")
        if weather.late_s:
            await asyncio.sleep(weather.random.random() * weather.late_s)
        if weather.lies and not commit.finish:
            weather.lied += 1
            tip = commit.position + len(messages.unpack(commit.tokens))
            tokens = [weather.random.randrange(256) for _ in range(weather.random.randint(1, weather.lies))]
            self._made_up.append(Hint(commit.session, tip, 3, messages.pack(tokens), 0.99, 0.0))

    async def close(self) -> None:
        await self._link.close()
