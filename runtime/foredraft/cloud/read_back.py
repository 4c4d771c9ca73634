"""Reading back: what a target's exits, and a draft, say at every position of a text that is finished.

A session's passes ask few exits, and none about the token that the target adds itself; nor is a draft asked
about that. Whoever records it asks afterwards, when nobody waits: the same text is run through the target once
more, many tokens to a pass, with all exits, and through the draft.
"""

from collections.abc import AsyncIterator, Sequence

from foredraft.errors import RefusedError
from foredraft.protocol import messages
from foredraft.protocol.messages import Open, Predictions, Read, Steer, pack
from foredraft.protocol.ports import Drafter, Guess, NewDrafter, Pass, Prediction, Target
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree

_BLOCK = 256
"""Tokens in a message about the draft alone."""


async def read_back(
    target: Target, tokens: Sequence[int], start: int, sampling: Sampling, owner: str = ""
) -> AsyncIterator[tuple[int, list[Prediction]]]:
    """What the exits say of ``tokens`` from ``start`` on: block by block its position and a reading per exit.

    A reading's ``tokens[i]`` is what the exit says at that position + i, noise included. ``start`` is
    above 0. Raises what the target raises.
    """
    card = target.card
    most = min(card.max_pass_nodes + 1, card.prefill_chunk)
    position = start
    slot = await target.slot(tokens[:start], sampling, owner)
    try:
        while position < len(tokens):
            while position - slot.cached > card.prefill_chunk:
                await slot.prefill(tokens[slot.cached : slot.cached + card.prefill_chunk])
            block = tokens[position : position + most]
            chain = tuple(block[:-1])  # what follows its last token is none of ours
            trunk = tuple(tokens[slot.cached : position])
            heard: list[Prediction] = []
            await slot.verify(Pass(trunk, chain, tuple(range(-1, len(chain) - 1)), card.exits), heard.append)
            slot.keep(range(len(chain)))
            yield position, heard
            position += len(block)
    finally:
        slot.close()


async def guesses_along(
    drafter: Drafter, prompt: Sequence[int], tokens: Sequence[int], sampling: Sampling, width: int
) -> list[list[Guess]]:
    """The draft's ``width`` likeliest guesses at each of ``tokens``; as many as it expands, in one step."""
    tree, most = DraftTree(prompt), drafter.max_nodes_per_step
    await drafter.begin(prompt, sampling)
    guesses: list[list[Guess]] = []
    for first in range(0, len(tokens), most):
        block = tokens[first : first + most]
        nodes = [tree.root]
        for token in block[:-1]:
            nodes.append(tree.add(nodes[-1], token))
        guesses += await drafter.draft(nodes, width)
        tree.advance(block)
        drafter.advance(block)
    return guesses


async def tell(
    session: int,
    target: Target,
    new_drafter: NewDrafter | None,
    tokens: Sequence[int],
    start: int,
    sampling: Sampling,
    owner: str = "",
) -> AsyncIterator[Predictions]:
    """The messages that tell what exits and draft say of ``tokens`` from ``start`` on.

    Raises RefusedError("invalid") where there are neither, and what the engines raise.
    """
    if not target.card.exits and new_drafter is None:
        raise RefusedError(messages.INVALID, "this server has neither exits nor a draft model to tell of")
    drafted = [] if new_drafter is None else await _drafted(new_drafter, tokens, start, sampling)
    if target.card.exits:
        async for position, heard in read_back(target, tokens, start, sampling, owner):
            exits = tuple((one.layer, pack(one.tokens), one.confidence) for one in heard)
            at = position - start
            yield Predictions(session, position, exits, tuple(drafted[at : at + len(heard[0].tokens)]))
    else:
        for at in range(0, len(drafted), _BLOCK):
            yield Predictions(session, start + at, (), tuple(drafted[at : at + _BLOCK]))


async def _drafted(
    new_drafter: NewDrafter, tokens: Sequence[int], start: int, sampling: Sampling
) -> list[tuple[int, float] | None]:
    """The best guess in the place of each token, None where there is none."""
    drafter = new_drafter()
    try:
        guesses = await guesses_along(drafter, tokens[:start], tokens[start:], sampling, 1)
    finally:
        await drafter.close()
    return [(best[0].token, best[0].probability) if best else None for best in guesses]


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
