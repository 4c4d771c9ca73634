"""What draft and exits say of every token of a finished text: asked afterwards, when nobody waits for it.

In the session the draft is asked where its policy wants it, which leaves holes: the tokens that the
target added by itself, and all of a text that was streamed. Without them no other policy could be tried on the record.
"""

from collections.abc import AsyncIterator, Sequence

from foredraft.core.edge import Connect
from foredraft.core.handshake import shake_hands
from foredraft.core.messages import Read, Readings, Refused, pack, unpack
from foredraft.core.ports import Drafter, Guess, Link, Reading
from foredraft.core.sampling import Sampling
from foredraft.core.tree import DraftTree
from foredraft.errors import ForedraftError, RefusedError
from foredraft.record.frames import BEYOND, UNASKED, Said, Told

RANKED = 64
"""Among so many of the draft's guesses the true token is looked for."""
KEPT = 8
"""So many of them are recorded."""

_READ_SESSION = 1


async def guesses_along(
    drafter: Drafter, prompt: Sequence[int], tokens: Sequence[int], sampling: Sampling
) -> list[list[Guess]]:
    """The draft's ``RANKED`` likeliest guesses at each of ``tokens``; as many as it expands, in one step."""
    tree, most = DraftTree(prompt), drafter.max_nodes_per_step
    await drafter.begin(prompt, sampling)
    guesses: list[list[Guess]] = []
    for first in range(0, len(tokens), most):
        block = tokens[first : first + most]
        nodes = [tree.root]
        for token in block[:-1]:
            nodes.append(tree.add(nodes[-1], token))
        guesses += await drafter.draft(nodes, RANKED)
        tree.advance(block)
        drafter.advance(block)
    return guesses


async def readings_from_cloud(
    connect: Connect, api_key: str, tokens: Sequence[int], start: int, sampling: Sampling
) -> AsyncIterator[tuple[int, list[Reading]]]:
    """What the cloud's exits say of ``tokens`` from ``start`` on, as ``core.readback.read_back`` gives it.

    Raises RefusedError (an older cloud does not answer such questions) and what the link raises.
    """
    link = await connect()
    try:
        await shake_hands(link, api_key)
        sampled = (sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed)
        await link.send(Read(_READ_SESSION, pack(tokens), start, *sampled))
        position = start
        while position < len(tokens):
            block = await _next_readings(link)
            if block.position != position or not block.exits:
                raise ForedraftError(f"the cloud tells of position {block.position}; {position} is next")
            heard = [Reading(layer, tuple(unpack(said)), sure) for layer, said, sure in block.exits]
            if len({len(one.tokens) for one in heard} | {len(one.confidence) for one in heard}) != 1:
                raise ForedraftError("the cloud's exits tell of different numbers of tokens")
            yield position, heard
            position += max(1, len(heard[0].tokens))
    finally:
        await link.close()


async def _next_readings(link: Link) -> Readings:
    message = await link.receive()
    if isinstance(message, Refused):
        raise RefusedError(message.code, message.reason, message.retry_after_s)
    if not isinstance(message, Readings):
        raise ForedraftError(f"the cloud answered Read with {type(message).__name__}")
    return message


async def columns(blocks: AsyncIterator[tuple[int, list[Reading]]]) -> list[tuple[Said, ...]]:
    """Readings block by block as what all exits say of each token, shallowest first."""
    said: list[tuple[Said, ...]] = []
    async for _, heard in blocks:
        rows = [zip(one.tokens, one.confidence, strict=True) for one in sorted(heard, key=lambda one: one.layer)]
        said += zip(*rows, strict=True)
    return said


def told_of(
    session: int,
    start: int,
    tokens: Sequence[int],
    guesses: Sequence[Sequence[Guess]],
    readings: Sequence[tuple[Said, ...]],
) -> list[Told]:
    """The frames for a text; ``guesses`` or ``readings`` may be empty where nobody could be asked."""
    told: list[Told] = []
    for index, token in enumerate(tokens):
        best = guesses[index] if index < len(guesses) else None
        exits = readings[index] if index < len(readings) else ()
        right = tuple(said == token for said, _ in exits)
        kept = tuple((guess.token, guess.probability) for guess in (best or ())[:KEPT])
        told.append(Told(session, start + index, _rank(token, best), kept, exits, right))
    return told


def _rank(token: int, guesses: Sequence[Guess] | None) -> int:
    if guesses is None:
        return UNASKED
    return next((rank for rank, guess in enumerate(guesses) if guess.token == token), BEYOND)
