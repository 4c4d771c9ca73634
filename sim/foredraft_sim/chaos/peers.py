"""Hostile peers: each bothers one server until it is stopped, and connects again whenever it is shown out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Final

from foredraft.errors import ForedraftError
from foredraft.protocol import messages
from foredraft.protocol.anchor import ORIGIN, Anchor
from foredraft.protocol.messages import (
    PROTOCOL_VERSION,
    Chain,
    Close,
    Commit,
    Grow,
    Hello,
    Open,
    Propose,
    Proposed,
    Read,
    Steer,
    pack,
    pack_weights,
)
from foredraft_sim.chaos.author import VOCABULARY
from foredraft_sim.chaos.engines import EXITS, PASS_NODES
from foredraft_sim.chaos.plan import Peer
from foredraft_sim.chaos.storm import StormyLink, Weather
from foredraft_sim.chaos.world import World

_WEATHER: Final = Weather(delay_s=0.002, room=4, at_once=0.5)
_REST_S: Final = 0.25
"""Between one connection and the next."""
_FOR_EVER: Final = 1 << 40
_LONG: Final = 200
"""Tokens of a text that is read back, or that nobody reads."""


async def bother(world: World, peer: Peer, number: int) -> None:
    """Be a nuisance until cancelled."""
    await asyncio.sleep(peer.start_s)
    await asyncio.gather(*(_bother(world, peer, f"peer {number}.{place}") for place in range(peer.links)))


async def _bother(world: World, peer: Peer, who: str) -> None:
    """On one connection at a time."""
    rng, secret = world.streams.stream(who), peer.key if world.plan.keys else ""
    while True:
        with suppress(ForedraftError):
            wrong = peer.kind == "junk" and rng.random() < 0.1
            link = await world.connect(who, peer.where, "nobody's" if wrong else secret, 0.002, _WEATHER)
            async with _cut_at_the_end(link):
                await _KINDS[peer.kind](link, rng, secret)
        await asyncio.sleep(_REST_S)


@asynccontextmanager
async def _cut_at_the_end(link: StormyLink) -> AsyncIterator[None]:
    try:
        yield
    finally:
        link.cut()


def _opening(rng: Random, session: int, new_tokens: int, *, alone: bool = True, temperature: float = 0.0) -> Open:
    """A text of nonsense; its seed is above those of honest ones. ``alone``: else passes wait for wide trees."""
    tokens = [rng.randrange(VOCABULARY) for _ in range(rng.choice((1, 8, 60)))]
    steer = Steer(
        session, 1, alone_until=_FOR_EVER if alone else 0, max_branches=PASS_NODES, exits=EXITS, threshold=0.0
    )
    seed = (1 << 50) + rng.getrandbits(40)
    return Open(session, pack(tokens), len(tokens), temperature, 0, 1.0, seed, new_tokens, (), (), steer)


async def _wide(link: StormyLink, rng: Random, secret: str) -> None:
    """A wide tree of nonsense with each commit; one text after the other; on every second link with proposals."""
    await link.send(Hello(PROTOCOL_VERSION, secret))
    session, proposes = 0, rng.random() < 0.5
    while True:
        session += 1
        opened = _opening(rng, session, 400, alone=False, temperature=0.8 if proposes else 0.0)
        tip = ORIGIN.after(messages.unpack(opened.tokens))
        if proposes:
            await link.send(Propose(session, ()))
        await link.send(opened)
        finish = ""
        while not finish:
            chains = _nonsense(rng, tip)
            if proposes:
                await link.send(Propose(session, _claims(tip, chains)))
            await link.send(Grow(session, chains))
            tip, finish = await _next_tip(link, session, tip)


def _nonsense(rng: Random, tip: Anchor) -> tuple[Chain, ...]:
    tokens = rng.sample(range(VOCABULARY), PASS_NODES)
    return tuple(Chain(tip.position, tip.hash, pack([token])) for token in tokens)


def _claims(tip: Anchor, chains: tuple[Chain, ...]) -> tuple[Proposed, ...]:
    """As if a draft were as sure of each of them, at the tip and below each."""
    tokens = b"".join(chain.tokens for chain in chains)
    weights = pack_weights([1] * len(chains))
    prefixes = (tip, *(tip.after(messages.unpack(chain.tokens)) for chain in chains))
    return tuple(Proposed(prefix.position, prefix.hash, tokens, weights) for prefix in prefixes)


async def _next_tip(link: StormyLink, session: int, tip: Anchor) -> tuple[Anchor, str]:
    while True:
        message = await link.receive()
        if isinstance(message, Commit) and message.session == session and message.position == tip.position:
            return tip.after(messages.unpack(message.tokens)), message.finish
        if isinstance(message, messages.Refused) and message.session in (0, session) and not message.hash:
            await asyncio.sleep(_REST_S)
            return tip, "refused"


async def _reads(link: StormyLink, rng: Random, secret: str) -> None:
    """Long texts are to be read back; none before the one before has been, or was refused."""
    await link.send(Hello(PROTOCOL_VERSION, secret))
    session = 0
    while True:
        session += 1
        tokens = [rng.randrange(VOCABULARY) for _ in range(_LONG)]
        await link.send(Read(session, pack(tokens), rng.randint(1, 40), 0.0, 0, 1.0, rng.getrandbits(40)))
        for _ in range(rng.randint(1, 4)):
            await link.receive()


async def _junk(link: StormyLink, rng: Random, secret: str) -> None:
    """Frames that are no messages, messages out of turn, and some that make no sense."""
    if rng.random() < 0.8:
        await link.send(Hello(PROTOCOL_VERSION if rng.random() < 0.9 else 1, secret))
    for _ in range(rng.randint(1, 12)):
        session = rng.randint(0, 3)
        wrong = Anchor(rng.randrange(100), rng.getrandbits(64))
        message = rng.choice(
            (
                _opening(rng, session, 9),
                Open(session, b"\x80", 3, -1.0, 0, 2.0, 0, 0, (), ("",), Steer(session, 1)),
                Open(session, pack([VOCABULARY + 1]), 1, 0.0, 0, 1.0, 0, 9, (), (), Steer(session, 1)),
                Grow(session, (Chain(wrong.position, wrong.hash, pack([1])),)),
                Grow(session, (Chain(0, ORIGIN.hash, pack([VOCABULARY])),)),
                Steer(session, rng.randint(0, 9), _FOR_EVER, exits=(1,)),
                Close(session),
                messages.Drain(1.0),
                Propose(session, (Proposed(wrong.position, wrong.hash, pack([1, 1]), pack_weights([1, 2])),)),
                Propose(session, (Proposed(0, ORIGIN.hash, b"\x80", b"\x00"),)),
                messages.Score(session, 3),
                messages.Constrain(session, "regex", "("),
                Read(session, pack([1, 2, 3]), 9, 0.0, 0, 1.0, 0),
            )
        )
        await link.send(message)
    if rng.random() < 0.5:
        await link.send_raw(rng.randbytes(rng.randint(0, 40)))
    await asyncio.sleep(rng.random())


async def _churn(link: StormyLink, rng: Random, secret: str) -> None:
    """Come, open a text, and go; sometimes another one at once, sometimes with a word."""
    await link.send(Hello(PROTOCOL_VERSION, secret))
    for session in range(1, rng.randint(2, 5)):
        await link.send(_opening(rng, session, 50, alone=rng.random() < 0.7))
        if rng.random() < 0.5:
            await link.send(Close(session))
    await asyncio.sleep(rng.random() * 0.2)
    if rng.random() < 0.5:
        await link.close()
        await asyncio.sleep(0.1)


async def _mute(link: StormyLink, rng: Random, secret: str) -> None:
    """Open long texts, and read nothing of them."""
    await link.send(Hello(PROTOCOL_VERSION, secret))
    for session in range(1, 4):
        await link.send(_opening(rng, session, _LONG))
        await asyncio.sleep(rng.random() * 3.0)
    await asyncio.sleep(30.0)


_KINDS: Final[dict[str, Callable[[StormyLink, Random, str], Awaitable[None]]]] = {
    "wide": _wide,
    "reads": _reads,
    "junk": _junk,
    "churn": _churn,
    "mute": _mute,
}
