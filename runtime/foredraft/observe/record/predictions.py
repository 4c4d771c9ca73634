"""What drafts and exits say of every token of a finished text: asked afterwards, when nobody waits for it.

In the session the draft is asked where its policy wants it, which leaves holes: the tokens that the
target added by itself, and all of a text that was streamed. Without them no other policy could be tried on the record.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from foredraft.edge.connections import Connect
from foredraft.edge.handshake import shake_hands
from foredraft.errors import ForedraftError, RefusedError
from foredraft.observe.record.frames import BEYOND, UNASKED, Said, TokenPredictions
from foredraft.protocol.messages import Predictions, Read, Refused, pack, unpack
from foredraft.protocol.ports import Guess, Link, Prediction
from foredraft.protocol.sampling import Sampling

RANKED = 64
"""Among so many of the draft's guesses the true token is looked for."""
KEPT = 8
"""So many of them are recorded."""

_READ_SESSION = 1


@dataclass(slots=True)
class CloudSays:
    """What the cloud says of each token: all exits, shallowest first, and the best guess of a draft there.

    ``drafted``: None where the draft had no idea. Either is empty where there is nothing of that kind.
    """

    exits: list[tuple[Said, ...]] = field(default_factory=list)
    drafted: list[Said | None] = field(default_factory=list)


async def ask_cloud(connect: Connect, api_key: str, tokens: Sequence[int], start: int, sampling: Sampling) -> CloudSays:
    """What the cloud's exits and draft say of ``tokens`` from ``start`` on.

    Raises RefusedError (an older cloud does not answer such questions) and what the link raises.
    """
    link = await connect()
    try:
        await shake_hands(link, api_key)
        sampled = (sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed)
        await link.send(Read(_READ_SESSION, pack(tokens), start, *sampled))
        says, position = CloudSays(), start
        while position < len(tokens):
            block = await _next_readings(link)
            if block.position != position:
                raise ForedraftError(f"the cloud tells of position {block.position}; {position} is next")
            exits = _rows([Prediction(layer, tuple(unpack(said)), sure) for layer, said, sure in block.exits])
            if not (exits or block.drafted) or (exits and block.drafted and len(exits) != len(block.drafted)):
                raise ForedraftError("the cloud's exits and draft tell of different numbers of tokens")
            says.exits += exits
            says.drafted += block.drafted
            position += len(exits) or len(block.drafted)
        return says
    finally:
        await link.close()


async def _next_readings(link: Link) -> Predictions:
    message = await link.receive()
    if isinstance(message, Refused):
        raise RefusedError(message.code, message.reason, message.retry_after_s)
    if not isinstance(message, Predictions):
        raise ForedraftError(f"the cloud answered Read with {type(message).__name__}")
    return message


def _rows(heard: Sequence[Prediction]) -> list[tuple[Said, ...]]:
    """A block's readings token by token, shallowest exit first. Raises ForedraftError."""
    if len({len(one.tokens) for one in heard} | {len(one.confidence) for one in heard}) > 1:
        raise ForedraftError("the cloud's exits tell of different numbers of tokens")
    exits = [zip(one.tokens, one.confidence, strict=True) for one in sorted(heard, key=lambda one: one.layer)]
    return list(zip(*exits, strict=True))


async def columns(blocks: AsyncIterator[tuple[int, list[Prediction]]]) -> list[tuple[Said, ...]]:
    """Predictions block by block as what all exits say of each token, shallowest first."""
    return [said async for _, heard in blocks for said in _rows(heard)]


def told_of(
    session: int,
    start: int,
    tokens: Sequence[int],
    guesses: Sequence[Sequence[Guess]],
    cloud: CloudSays,
) -> list[TokenPredictions]:
    """The frames for a text; ``guesses``, or what the cloud says, may be empty where nobody could be asked."""
    predictions: list[TokenPredictions] = []
    for index, token in enumerate(tokens):
        best = _said(guesses[index]) if index < len(guesses) else None
        exits = cloud.exits[index] if index < len(cloud.exits) else ()
        right = tuple(said == token for said, _ in exits)
        beside: list[Said] | None = None
        if index < len(cloud.drafted):
            beside = [one for one in cloud.drafted[index : index + 1] if one is not None]
        kept, cloud_kept = tuple((best or ())[:KEPT]), tuple(beside or ())
        ranks = _rank(token, best), _rank(token, beside)
        predictions.append(TokenPredictions(session, start + index, ranks[0], kept, exits, right, ranks[1], cloud_kept))
    return predictions


def _said(guesses: Sequence[Guess]) -> list[Said]:
    return [(guess.token, guess.probability) for guess in guesses]


def _rank(token: int, guesses: Sequence[Said] | None) -> int:
    if guesses is None:
        return UNASKED
    return next((rank for rank, (guess, _) in enumerate(guesses) if guess == token), BEYOND)
