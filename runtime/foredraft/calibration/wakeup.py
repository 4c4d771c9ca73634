"""What a call takes longer after its device was idle: caches are gone, clocks are down, threads asleep.

An engine alone is measured call after call, and is never cold; in a session it waits a round trip between its calls.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from statistics import median
from typing import Final

from foredraft.calibration.measuring import Stopwatch
from foredraft.profiles.schema import Host
from foredraft.protocol.ports import Drafter, Pass, Target
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree

GAPS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
LEAST_SHARE: Final = 0.05
"""Of a warm call; less is taken for nothing."""

_HALVES_S: Final = tuple(0.0005 * 1.25**step for step in range(25))  # to a tenth of a second
_TURNS: Final = 15
_CONTEXT: Final = 64
_GUESSES: Final = 4
_SAMPLING: Final = Sampling()

Call = Callable[[float], Awaitable[float]]
"""Rests for so many seconds, then makes one call, of the same kind each time; the call's seconds."""


async def drafter_wake(drafter: Drafter, *, vocab_size: int, context: int) -> tuple[float, float]:
    """What a draft step takes longer after a long rest, and the rest after which it is half of that, in seconds."""
    random = Random(0)
    tree = DraftTree([random.randrange(vocab_size) for _ in range(min(_CONTEXT, context // 2))])
    turns = min(_TURNS, (context - tree.position) // (3 * len(GAPS_S)) - 1)
    if turns < 1:
        return 0.0, Host().wake_half_s  # a text too short to tell
    await drafter.begin(tree.tokens, _SAMPLING)

    async def step(rest_s: float) -> float:
        token = [random.randrange(vocab_size)]
        tree.advance(token)
        drafter.advance(token)
        await asyncio.sleep(rest_s)
        with Stopwatch() as timer:
            await drafter.draft([tree.root], _GUESSES)
        return timer.seconds

    return fit_wake(*await _rested(step, turns))


async def target_wake(target: Target) -> tuple[float, float]:
    """What a pass takes longer after a long rest, and the rest after which it is half of that, in seconds."""
    card, random = target.card, Random(0)
    nodes = min(_GUESSES, card.max_pass_nodes)
    text = [random.randrange(card.vocab_size) for _ in range(min(_CONTEXT, card.context // 2))]
    chain = tuple(random.randrange(card.vocab_size) for _ in range(nodes))

    async def a_pass(rest_s: float) -> float:
        slot = await target.slot(text, _SAMPLING)
        if len(text) - 1 > slot.cached:
            await slot.prefill(text[slot.cached : -1])
        await asyncio.sleep(rest_s)
        with Stopwatch() as timer:
            await slot.verify(Pass((text[-1],), chain, tuple(range(-1, nodes - 1)), ()), lambda reading: None)
        slot.close()
        return timer.seconds

    return fit_wake(*await _rested(a_pass, _TURNS))


async def _rested(call: Call, turns: int) -> tuple[dict[float, float], float]:
    """By the rest before it, what a call took longer than the second one after it; and what that took. Medians."""
    random = Random(0)
    extras_s: dict[float, list[float]] = {gap_s: [] for gap_s in GAPS_S}
    warm_s: list[float] = []
    for turn in range(turns + 1):
        for gap_s in random.sample(GAPS_S, len(GAPS_S)):
            cold_s = await call(gap_s)
            await call(0.0)
            warm_s.append(await call(0.0))
            if turn:
                extras_s[gap_s].append(cold_s - warm_s[-1])
    return {gap_s: median(extra_s) for gap_s, extra_s in extras_s.items() if extra_s}, median(warm_s)


def fit_wake(extras_s: Mapping[float, float], warm_s: float) -> tuple[float, float]:
    """The ``wake_s`` and ``wake_half_s`` (``profiles.Host``) nearest to these; 0 where a rest makes no difference."""

    def fitted(half_s: float) -> tuple[float, float]:
        shares = {gap_s: 1.0 - 2.0 ** (-gap_s / half_s) for gap_s in extras_s}
        squares = sum(share * share for share in shares.values())
        most_s = sum(extras_s[gap_s] * share for gap_s, share in shares.items()) / squares if squares else 0.0
        return sum((extras_s[gap_s] - most_s * share) ** 2 for gap_s, share in shares.items()), most_s

    half_s = min(_HALVES_S, key=lambda half_s: fitted(half_s)[0])
    most_s = fitted(half_s)[1]
    return (most_s, half_s) if most_s > LEAST_SHARE * warm_s else (0.0, half_s)
