"""What befalls one world: who is there, what they do and what goes wrong, drawn from a seed. Nothing runs here.

All that can be left out to find the least that breaks something is an item, and items have numbers: sessions, the
weather of an edge, faults, hostile peers. Leaving one out changes nothing about the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Final

from foredraft.errors import ConfigError
from foredraft_sim.chaos.author import VOCABULARY
from foredraft_sim.chaos.engines import BUG, FORWARD, MEMORY
from foredraft_sim.chaos.storm import Weather
from foredraft_sim.streams import Streams

FAULTS: Final = {
    "cut": "all links of an edge are cut, and there is no way for a while",
    "stall": "nothing gets through on the links of an edge for a while",
    "kill": "a server's process is killed, and started again later",
    "swap": "a server's process is killed, and another model is served later",
    "drain": "a server is told to end, sees its edges off, and is started again later",
    MEMORY: "a device has no memory left for a while",
    FORWARD: "the forwards of a device fail for a while, as torch fails",
    BUG: "the forwards of a device fail for a while, as nobody thought they would",
    "crash": "an edge's process is killed, and goes on later from what it had shown",
    "quit": "an edge's application ends in good order amid its texts, and goes on later from what it had shown",
    "revoke": "a key is revoked",
    "clock": "the wall clock of all servers jumps",
}
PEERS: Final = {
    "wide": "sends wide trees of nonsense without end, and proposals",
    "reads": "has long texts read back without end",
    "junk": "sends frames and messages that make no sense",
    "churn": "connects, opens a text, and is gone",
    "mute": "opens texts and reads nothing",
}
OF_KEYS: Final = ("revoke", "clock")
OF_EDGES: Final = ("cut", "stall", "crash", "quit")
OF_SERVERS: Final = ("kill", "swap", "drain", MEMORY, FORWARD, BUG)
POLICIES: Final = ("cloud", "sync", "seed", "ahead", "auto", "any")
BESIDE: Final = ("colocated:cloud_gamma=2", "both:cloud_gamma=2")
"""Policies for servers with a draft beside the target."""

_RARELY: Final = {FORWARD: 0.4, BUG: 0.4, "revoke": 0.7, "clock": 0.7}
"""What ends many texts for good is drawn less often than the rest."""
STORMY: Final = "weather"
SESSION: Final = "session"
DAY_S: Final = 86_400.0


@dataclass(frozen=True)
class Session:
    """One text. ``stops``: whether the model's end marks end it. ``leave_after``: so many tokens are enough."""

    edge: int
    start_s: float
    seed: int
    prompt: tuple[int, ...]
    new_tokens: int
    policy: str
    stops: bool = False
    leave_after: int = 0
    deadline_s: float = 0.0
    kind: str = SESSION


@dataclass(frozen=True)
class Gale:
    """How the links of an edge misbehave from the beginning on."""

    edge: int
    weather: Weather
    kind: str = STORMY


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong. ``where``: which edge, server or key; ``for_s``: for how long, or how far."""

    kind: str
    at_s: float
    for_s: float
    where: int = 0


@dataclass(frozen=True)
class Peer:
    """A hostile peer beside, on ``links`` connections at once. It stays until the others are done."""

    kind: str
    start_s: float
    where: int
    key: str
    links: int = 1


Item = Session | Gale | Fault | Peer


@dataclass(frozen=True)
class KeyPlan:
    """A key of the servers, with what it may have; ``expires``: whether a day later it is none any more."""

    name: str
    weight: float = 1.0
    sessions: int = 0
    connections: int = 0
    cache: int = 0
    expires: bool = False


@dataclass(frozen=True)
class EdgePlan:
    """One device. ``servers``: in which order it tries them. ``key``: whose it is; empty where none is needed."""

    servers: tuple[int, ...]
    key: str
    right: float
    link_s: float


@dataclass(frozen=True)
class Plan:
    """One world. ``items``: by their numbers, which stay when some are left out.

    ``drafts``: whether a draft runs beside the target, on its device. ``honest``: the key whose share of the device is
    looked at, beside others that take what they can; empty for none.
    """

    seed: int
    number: int
    models: tuple[str, ...]
    cache_rows: int
    drafts: bool
    keys: tuple[KeyPlan, ...]
    edges: tuple[EdgePlan, ...]
    items: tuple[tuple[int, Item], ...]
    honest: str = ""

    @property
    def sessions(self) -> list[Session]:
        """The texts."""
        return [item for _, item in self.items if isinstance(item, Session)]

    @property
    def kinds(self) -> set[str]:
        """What there is of weather, faults and peers."""
        return {item.kind for _, item in self.items} - {SESSION}

    @property
    def streams(self) -> Streams:
        """The luck of this world."""
        return Streams(self.seed).child(f"world {self.number}")

    def keep(self, numbers: Sequence[int]) -> "Plan":
        """The world with these items alone. Raises ConfigError for a number that is none."""
        known = {number for number, _ in self.items}
        if strange := sorted(set(numbers) - known):
            raise ConfigError(f"world {self.number} has no item {strange[0]}; it has {len(known)}, from 0")
        return replace(self, items=tuple(item for item in self.items if item[0] in set(numbers)))

    def without(self, kinds: set[str]) -> "Plan":
        """The world without faults, weather and peers of these kinds."""
        return replace(self, items=tuple(item for item in self.items if item[1].kind not in kinds))


def plans(seed: int) -> Iterator[Plan]:
    """All worlds of a seed, without end."""
    number = 0
    while True:
        yield plan_of(seed, number)
        number += 1


def plan_of(seed: int, number: int) -> Plan:
    """One world of a seed: every fourth is a crowd of greedy keys; in the others each kind of fault has its turn."""
    streams = Streams(seed).child(f"world {number}")
    return _crowd(seed, number, streams) if number % 4 == 3 else _storm(seed, number, streams)


def _storm(seed: int, number: int, streams: Streams) -> Plan:
    rng = streams.stream("shape")
    models = ("oak",) * rng.choice((1, 1, 2, 3))
    first = list(FAULTS)[(number - number // 4) % len(FAULTS)]
    keyed, drafts = rng.random() < 0.6 or first in OF_KEYS, rng.random() < 0.5
    keys = tuple(_key(rng, place) for place in range(rng.randint(1, 3))) if keyed else ()
    edges = tuple(_edge(rng, len(models), keys) for _ in range(rng.randint(1, 4)))
    items: list[Item] = []
    for edge in range(len(edges)):
        luck = streams.stream(f"session {edge}")
        items += [_session(luck, edge, drafts=drafts) for _ in range(rng.randint(1, 4))]
        if rng.random() < 0.6:
            items.append(Gale(edge, _weather(streams.stream(f"weather {edge}"))))
    faults = [kind for kind in FAULTS if keyed or kind not in OF_KEYS]
    luck = streams.stream("faults")
    more = luck.choices(faults, [_RARELY.get(kind, 1.0) for kind in faults], k=rng.randint(0, 5))
    items += [_fault(luck, kind, len(edges), len(models), len(keys)) for kind in [first, *more]]
    peers = [_peer(luck, len(models), f"peer-{place}") for place in range(rng.choice((0, 0, 0, 1, 2)))]
    own = tuple(KeyPlan(peer.key) for peer in peers) if keyed else ()
    rows = rng.choice((512, 1024, 4096))
    return Plan(seed, number, models, rows, drafts, keys + own, edges, tuple(enumerate([*items, *peers])))


def _crowd(seed: int, number: int, streams: Streams) -> Plan:
    """One honest key whose weight is large, beside keys that take what they can."""
    rng = streams.stream("shape")
    honest = KeyPlan("honest", weight=float(rng.choice((8, 16))))
    edge = EdgePlan((0,), honest.name, rng.choice((0.5, 0.9)), 0.005)
    luck = streams.stream("session 0")
    policies = ("cloud", "sync", "seed")
    texts = [
        replace(_session(luck, 0), policy=luck.choice(policies), start_s=1.0 + luck.random(), leave_after=0)
        for _ in range(rng.choice((1, 1, 2)))
    ]
    texts = [replace(text, new_tokens=24, stops=False, deadline_s=0.0) for text in texts]
    texts = [replace(text, prompt=_prompt(luck, luck.choice((200, 400, 600)))) for text in texts]
    kinds = [luck.choice(("wide", "wide", "reads")) for _ in range(3)]
    greedy = [Peer(kind, luck.random() / 2, 0, f"peer-{place}", 4) for place, kind in enumerate(kinds)]
    keys = (honest, *(KeyPlan(peer.key) for peer in greedy))
    items: list[Item] = [*texts, *greedy]
    return Plan(seed, number, ("oak",), 1 << 15, False, keys, (edge,), tuple(enumerate(items)), honest.name)


def _key(rng: Random, place: int) -> KeyPlan:
    return KeyPlan(
        f"key-{place}",
        weight=rng.choice((0.5, 1.0, 4.0)),
        sessions=rng.choice((0, 0, 2)),
        connections=rng.choice((0, 0, 0, 3)),
        cache=rng.choice((0, 0, 0, 640)),
        expires=rng.random() < 0.5,
    )


def _edge(rng: Random, servers: int, keys: Sequence[KeyPlan]) -> EdgePlan:
    order = rng.sample(range(servers), servers)
    return EdgePlan(tuple(order), rng.choice(keys).name if keys else "", rng.choice((0.0, 0.6, 0.9)), rng.random() / 20)


def _session(rng: Random, edge: int, *, drafts: bool = False) -> Session:
    return Session(
        edge=edge,
        start_s=rng.random() * 3.0,
        seed=rng.getrandbits(48),
        prompt=_prompt(rng, rng.choice((1, 5, 40, 90, 200))),
        new_tokens=rng.choice((1, 4, 12, 24, 40, 80)),
        policy=rng.choice(POLICIES + BESIDE if drafts else POLICIES),
        stops=rng.random() < 0.4,
        leave_after=rng.randint(1, 6) if rng.random() < 0.1 else 0,
        deadline_s=rng.choice((0.2, 1.0, 3.0)) if rng.random() < 0.1 else 0.0,
    )


def _prompt(rng: Random, length: int) -> tuple[int, ...]:
    return tuple(rng.randrange(VOCABULARY) for _ in range(length))


def _weather(rng: Random) -> Weather:
    chances = (0.0, 0.1, 0.3)
    return Weather(
        delay_s=rng.choice((0.01, 0.05, 0.3)),
        duplicate=rng.choice(chances),
        reorder=rng.choice(chances),
        stale=rng.choice(chances),
        cut=rng.choice((0.0, 0.02, 0.1)),
        cuts=rng.randint(0, 3),
        room=rng.choice((0, 2, 8)),
        at_once=rng.choice((0.0, 0.5)),
    )


def _fault(rng: Random, kind: str, edges: int, servers: int, keys: int) -> Fault:
    at_s, for_s = rng.random() * 4.0, 0.05 + rng.random() ** 2 * 6.0
    if kind in OF_EDGES:
        return Fault(kind, at_s, for_s, rng.randrange(edges))
    if kind in OF_SERVERS:
        return Fault(kind, at_s, for_s, rng.randrange(servers))
    if kind == "clock":
        return Fault(kind, at_s, rng.choice((-1.0, 1.0)) * rng.choice((2.0, 3600.0, 2.0 * DAY_S)))
    return Fault(kind, at_s, 0.0, rng.randrange(keys))


def _peer(rng: Random, servers: int, key: str) -> Peer:
    return Peer(rng.choice(list(PEERS)), rng.random() * 2.0, rng.randrange(servers), key)


def said(item: Item) -> str:
    """An item in words."""
    if isinstance(item, Session):
        more = {"stops": item.stops, "leave_after": item.leave_after, "deadline_s": item.deadline_s}
        rest = "".join(f", {name}={value}" for name, value in more.items() if value)
        return (
            f"edge {item.edge} at {item.start_s:.3f} s: {item.new_tokens} tokens after {len(item.prompt)}, "
            f"{item.policy}{rest}"
        )
    if isinstance(item, Gale):
        weather = ", ".join(f"{name}={value:g}" for name, value in asdict(item.weather).items() if value)
        return f"edge {item.edge}: weather: {weather}"
    if isinstance(item, Peer):
        return f"peer {item.key} at {item.start_s:.3f} s, server {item.where}: {item.kind}: {PEERS[item.kind]}"
    return f"{item.kind} {item.where} at {item.at_s:.3f} s for {item.for_s:.3f} s: {FAULTS[item.kind]}"
