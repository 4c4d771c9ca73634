"""Reading back: what a target's exits say at every position of a text that is finished.

A session's passes ask few exits, and none about the token that the target adds itself. Whoever records
it asks afterwards, when nobody waits: the same text is run through the target once more, many
tokens to a pass, with all exits.
"""

from collections.abc import AsyncIterator, Sequence

from foredraft.core.messages import Open, Read, Readings, Steer, pack
from foredraft.core.ports import Pass, Reading, Target
from foredraft.core.sampling import Sampling


async def read_back(
    target: Target, tokens: Sequence[int], start: int, sampling: Sampling
) -> AsyncIterator[tuple[int, list[Reading]]]:
    """What the exits say of ``tokens`` from ``start`` on: block by block its position and a reading per exit.

    A reading's ``tokens[i]`` is what the exit says at that position + i, noise included. ``start`` is
    above 0. Raises what the target raises.
    """
    card = target.card
    most = min(card.max_pass_nodes + 1, card.prefill_chunk)
    position = start
    seat = await target.seat(tokens[:start], sampling)
    try:
        while position < len(tokens):
            while position - seat.cached > card.prefill_chunk:
                await seat.prefill(tokens[seat.cached : seat.cached + card.prefill_chunk])
            block = tokens[position : position + most]
            chain = tuple(block[:-1])  # what follows its last token is none of ours
            trunk = tuple(tokens[seat.cached : position])
            heard: list[Reading] = []
            await seat.verify(Pass(trunk, chain, tuple(range(-1, len(chain) - 1)), card.exits), heard.append)
            seat.keep(range(len(chain)))
            yield position, heard
            position += len(block)
    finally:
        seat.close()


def readings_of(session: int, position: int, heard: Sequence[Reading]) -> Readings:
    """The message that tells a block."""
    return Readings(session, position, tuple((one.layer, pack(one.tokens), one.confidence) for one in heard))


def opening_of(read: Read) -> Open:
    """What a session over the same text would have to open with: it is checked in the same way."""
    return Open(
        session=read.session,
        tokens=read.tokens,
        start=read.start,
        temperature=read.temperature,
        top_k=read.top_k,
        top_p=read.top_p,
        seed=read.seed,
        max_new_tokens=1,
        stop_tokens=(),
        stop_strings=(),
        steer=Steer(read.session, 1),
    )
