"""The world of a plan: servers that come and go, the ways to them, their keys and their wall clock."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from foredraft.errors import UnreachableError
from foredraft.keys import Key, hash_of, with_key, without_key
from foredraft.protocol.ports import Link
from foredraft.server.door import KEYS_LOOK_S
from foredraft_sim.chaos.plan import DAY_S, Gale, Plan
from foredraft_sim.chaos.process import Life
from foredraft_sim.chaos.seen import Process, Seen
from foredraft_sim.chaos.storm import CALM, Storm, StormyLink, Weather

EPOCH: Final = datetime(2030, 1, 1, tzinfo=UTC)
NOTICED_S: Final = KEYS_LOOK_S + 0.1
"""After so long a server has noticed that a key is none any more."""


class World:
    """Use it as a context, in a loop of its own. ``seen``: what is seen of it."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.seen, self.streams = plan, Seen(), plan.streams
        self.committed: dict[int, int] = {}  # by the request's seed: up to which position some server committed
        self.lives: list[Life | None] = []
        self._loop = asyncio.get_running_loop()
        self._folder = tempfile.TemporaryDirectory() if plan.keys else None
        self._jumped = timedelta(0)
        self._spent_s: dict[str, float] = {}  # keys that are none any more, since when
        self._revoked: set[str] = set()
        self._weather = {item.edge: item.weather for _, item in plan.items if isinstance(item, Gale)}
        self._storms: dict[str, Storm] = {}
        self._links: dict[str, list[StormyLink]] = {}
        self._away_s: dict[str, float] = {}
        self._write_keys()

    # Keys and clocks

    @property
    def _key_file(self) -> Path | None:
        return None if self._folder is None else Path(self._folder.name) / "keys.toml"

    def _write_keys(self) -> None:
        text = ""
        for plan in self.plan.keys:
            expires = EPOCH + timedelta(seconds=DAY_S) if plan.expires else None
            key = Key(
                name=plan.name,
                hash=hash_of(plan.name),
                weight=plan.weight,
                sessions=plan.sessions,
                connections=plan.connections,
                cache=plan.cache,
                expires=expires,
            )
            text = with_key(text, key)
        if self._key_file is not None:
            self._key_file.write_text(text, encoding="utf-8")

    def wall_clock(self) -> datetime:
        """What the servers' wall clocks say."""
        return EPOCH + timedelta(seconds=self._loop.time()) + self._jumped

    def jump(self, seconds: float) -> None:
        """The wall clocks jump."""
        self._jumped += timedelta(seconds=seconds)
        self._look_at_keys()

    def revoke(self, name: str) -> None:
        """A key is taken out of the file."""
        if self._key_file is not None:
            text = self._key_file.read_text(encoding="utf-8")
            self._key_file.write_text(without_key(text, name), encoding="utf-8")
            self._revoked.add(name)
            self._look_at_keys()

    def _look_at_keys(self) -> None:
        for key in self.plan.keys:
            over = key.expires and self.wall_clock() >= EPOCH + timedelta(seconds=DAY_S)
            if over or key.name in self._revoked:
                self._spent_s.setdefault(key.name, self._loop.time())
            else:
                self._spent_s.pop(key.name, None)

    def spent(self, name: str) -> bool:
        """Whether a key has not been one for so long that every server knows."""
        since_s = self._spent_s.get(name)
        return since_s is not None and self._loop.time() > since_s + NOTICED_S

    # Servers

    def start_servers(self) -> None:
        """All of them, with the models of the plan."""
        self.lives = [self._begun(server, model) for server, model in enumerate(self.plan.models)]

    def start_server(self, server: int, model: str) -> None:
        """A process of a server begins, if none is there."""
        if self.lives[server] is None:
            self.lives[server] = self._begun(server, model)

    def _begun(self, server: int, model: str) -> Life:
        seen = Process(server, model)
        self.seen.processes.append(seen)
        return Life(seen, self.plan, self._key_file, self.wall_clock, self.spent, self._told)

    def take_server(self, server: int) -> Life | None:
        """From now on there is no process of this server; the one that there was."""
        life, self.lives[server] = self.lives[server], None
        return life

    def _told(self, seed: int, position: int) -> None:
        self.committed[seed] = max(position, self.committed.get(seed, 0))

    # Ways

    def cut(self, who: str, for_s: float) -> None:
        """The links of an edge or a peer are cut, and it makes none for so long."""
        self._away_s[who] = self._loop.time() + for_s
        for link in self._links.pop(who, []):
            link.cut()

    def stall(self, who: str, for_s: float) -> None:
        """Nothing gets through on its links for so long."""
        for link in self._links.get(who, []):
            link.stall(self._loop.time() + for_s)

    async def connect(self, who: str, server: int, secret: str, link_s: float, weather: Weather) -> StormyLink:
        """A link to a server, after the round trips that it takes. Raises UnreachableError, RefusedError."""
        await asyncio.sleep(3.0 * link_s)
        life = self.lives[server]
        if self._away_s.get(who, 0.0) > self._loop.time():
            raise UnreachableError(f"{who} has no network")
        if life is None:
            raise UnreachableError(f"server {server} does not answer")
        links = self._links.setdefault(who, [])
        storm = self._storms.setdefault(who, Storm(weather, self.streams.stream(f"links of {who}")))
        link = life.let_in(secret, storm)
        links.append(link)
        return link

    def place(self, edge: int, server: int) -> "Place":
        """A server as one edge sees it."""
        plan = self.plan.edges[edge]
        weather = self._weather.get(edge, replace(CALM, delay_s=plan.link_s, at_once=0.5))
        return Place(lambda: self.connect(f"edge {edge}", server, plan.key, plan.link_s, weather))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()


class Place:
    """Where a URL would stand (``foredraft.api.edge.Host``)."""

    tokenizer = None

    def __init__(self, connect: Callable[[], Awaitable[Link]]) -> None:
        self._connect = connect

    async def connect(self) -> Link:
        """A link. Raises UnreachableError, RefusedError."""
        return await self._connect()
