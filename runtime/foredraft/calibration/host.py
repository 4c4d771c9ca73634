"""What the session adds to an engine's calls: from the end of one call to the next, and before the first one.

Sessions run in this process, over a link in memory, with a scripted engine at the other end that
takes no time. What the network and its libraries take is not in it: that belongs to a link's profile.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import Final

from foredraft.api.cloud import Cloud
from foredraft.api.edge import connect
from foredraft.calibration.measuring import Stopwatch
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.protocol.ports import Drafter, Guess, Pass, Prediction, Slot, Target, TargetCard, Verdict
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node

_TOKENS: Final = 96
_GAMMA: Final = 4
_WARM_UP: Final = 8
_TEXTS: Final = 40


class _WatchedTarget:
    """A target that notes when places were asked for, and when passes began and ended. Its owner closes the engine."""

    def __init__(self, inner: Target, spans_s: list[tuple[float, float]], clock: Stopwatch) -> None:
        self.asked_s: list[float] = []
        self._inner, self._spans_s, self._clock = inner, spans_s, clock

    @property
    def card(self) -> TargetCard:
        return self._inner.card

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> Slot:
        self.asked_s.append(self._clock.so_far())
        return _WatchedSlot(await self._inner.slot(tokens, sampling, owner), self._spans_s, self._clock)

    async def close(self) -> None:
        """The engine is its owner's to close."""


class _WatchedSlot:
    def __init__(self, inner: Slot, spans_s: list[tuple[float, float]], clock: Stopwatch) -> None:
        self._inner, self._spans_s, self._clock = inner, spans_s, clock
        self.prefill, self.keep, self.close = inner.prefill, inner.keep, inner.close

    @property
    def cached(self) -> int:
        return self._inner.cached

    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        began_s = self._clock.so_far()
        verdict = await self._inner.verify(batch, on_exit)
        self._spans_s.append((began_s, self._clock.so_far()))
        return verdict


class _WatchedDrafter:
    """A drafter that notes when its steps began and ended."""

    def __init__(self, inner: Drafter, spans_s: list[tuple[float, float]], clock: Stopwatch) -> None:
        self._inner, self._spans_s, self._clock = inner, spans_s, clock
        self.begin, self.advance, self.close = inner.begin, inner.advance, inner.close

    @property
    def tokenizer_digest(self) -> str:
        return self._inner.tokenizer_digest

    @property
    def max_nodes_per_step(self) -> int:
        return self._inner.max_nodes_per_step

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        began_s = self._clock.so_far()
        guesses = await self._inner.draft(nodes, width)
        self._spans_s.append((began_s, self._clock.so_far()))
        return guesses


async def target_host_s(target: Target) -> float:
    """Seconds between one pass and the next when the target decodes alone; the median."""
    spans_s: list[tuple[float, float]] = []
    with Stopwatch() as clock:
        cloud = Cloud(_WatchedTarget(target, spans_s, clock))
        async with cloud, connect(cloud, draft=ScriptedDrafter(lambda position, width: [])) as edge:
            tokens = min(_TOKENS, target.card.context - 2)
            await edge.generate([1], policy="cloud", max_new_tokens=tokens, end_marks=False, seed=0).finish()
    return _gap_s(spans_s)


async def target_opening_s(target: Target) -> float:
    """Seconds from the request for a text to the session's place at the target; the median."""
    took_s = []
    with Stopwatch() as clock:
        watched = _WatchedTarget(target, [], clock)
        async with Cloud(watched) as cloud, connect(cloud, draft=ScriptedDrafter(lambda position, width: [])) as edge:
            for _ in range(_TEXTS):
                began_s = clock.so_far()
                await edge.generate([1], policy="cloud", max_new_tokens=1, end_marks=False, seed=0).finish()
                took_s.append(watched.asked_s[-1] - began_s)
    return median(took_s[_WARM_UP:])


async def drafter_host_s(drafter: Drafter, *, vocab_size: int, context: int) -> float:
    """Seconds between one draft step and the next of a chain; the median."""
    spans_s: list[tuple[float, float]] = []
    target = ScriptedTarget(
        lambda position: position % vocab_size, vocab_size=vocab_size, tokenizer_digest=drafter.tokenizer_digest
    )
    with Stopwatch() as clock:
        watched = _WatchedDrafter(drafter, spans_s, clock)
        async with Cloud(target) as cloud, connect(cloud, draft=watched) as edge:
            tokens = min(_TOKENS, context - 2 - _GAMMA)
            policy = f"sync:gamma={_GAMMA}"  # of four gaps, three lie within a chain
            await edge.generate([1], policy=policy, max_new_tokens=tokens, end_marks=False, seed=0).finish()
    return _gap_s(spans_s)


def _gap_s(spans_s: Sequence[tuple[float, float]]) -> float:
    gaps_s = [later[0] - earlier[1] for earlier, later in pairwise(spans_s[_WARM_UP:])]
    return max(0.0, median(gaps_s)) if gaps_s else 0.0
