"""Measuring an engine on this machine: how long its steps and passes take.

Works on any Drafter or Target, through the same ports as the session, and gives curves of
medians over repeats, after a warm-up. Calls are timed from the event loop, so that thread hops
and other host overhead are in them. The points of a curve are measured in turns, so that a
disturbance of the machine meets all of them alike.
"""

import asyncio
from collections.abc import Sequence
from random import Random
from statistics import median, quantiles

import msgspec

from foredraft.core.ports import Drafter, Pass, Seat, Target
from foredraft.core.sampling import Sampling
from foredraft.core.tree import DraftTree
from foredraft.engines.device import fine_clock
from foredraft.errors import ConfigError
from foredraft.profiles.schema import Grid, Range

Samples = dict[tuple[int, int], list[float]]
"""Seconds of the calls, by context and new tokens."""

_SAMPLING = Sampling()


class Measured(msgspec.Struct, frozen=True):
    """What was measured of an engine: curves, what an exit adds, the head's share, and the calls' spread."""

    calls: Grid
    prefill: Grid | None = None
    exit_s: float = 0.0
    head_share: float = 0.0
    cv: float = 0.0


async def measure_drafter(
    drafter: Drafter,
    nodes: Sequence[int],
    prompts: Sequence[int],
    contexts: Sequence[int],
    *,
    vocab_size: int,
    repeats: int = 15,
) -> Measured:
    """Draft steps of each number of nodes over each context, and first steps over ``prompts`` new tokens.

    Four guesses a node, greedy. The nodes hang side by side below the tip, and the cache has
    none of them when they are asked about. Raises ConfigError.
    """
    _check(nodes, contexts, repeats)
    _check(prompts, contexts, repeats)
    random = Random(0)
    samples: Samples = {}
    prefills: Samples = {}
    for context in contexts:
        text = _tokens(random, context, vocab_size)
        for repeat in range(repeats + 1):
            await drafter.begin(text, _SAMPLING)
            tree = DraftTree(text)
            await drafter.draft([tree.root], 4)  # the cache catches up
            for count in nodes:
                wanted = [tree.add(tree.root, token) for token in random.sample(range(vocab_size), count)]
                with _Timer() as timer:
                    await drafter.draft(wanted, 4)
                tree.clear()
                if repeat:  # the first one warms up
                    samples.setdefault((context, count), []).append(timer.seconds)
            for count in prompts:
                await drafter.begin(text, _SAMPLING)
                await drafter.draft([DraftTree(text).root], 4)
                longer = text + _tokens(random, count, vocab_size)
                await drafter.begin(longer, _SAMPLING)
                with _Timer() as timer:
                    await drafter.draft([DraftTree(longer).root], 4)
                if repeat:
                    prefills.setdefault((context, count), []).append(timer.seconds)
    return Measured(
        calls=_grid(samples, nodes, contexts), prefill=_grid(prefills, prompts, contexts), cv=_spread(samples)
    )


async def measure_target(
    target: Target, new_tokens: Sequence[int], contexts: Sequence[int], *, repeats: int = 15
) -> Measured:
    """Passes over the tip and a chain of draft nodes, and prefills, over each context; and the exits.

    What exits add is the difference to passes without them; the head's share follows from when
    they spoke. Raises ConfigError.
    """
    _check(new_tokens, contexts, repeats)
    card = target.card
    random = Random(0)
    samples: Samples = {}
    with_exits: Samples = {}
    shares: list[float] = []
    for context in contexts:
        text = _tokens(random, context, card.vocab_size)
        for repeat in range(repeats + 1):
            seat = await target.seat(text, _SAMPLING)
            await _prefill(seat, text, card.prefill_chunk)
            for count in new_tokens:
                for into, exits in ((samples, ()), (with_exits, card.exits)):
                    took_s, exits_s = await _pass(seat, _tokens(random, count, card.vocab_size), exits)
                    if repeat:  # the first one warms up
                        into.setdefault((context, count), []).append(took_s)
                        shares += [at_s / took_s * card.layers / layer for layer, at_s in exits_s]
            seat.close()
    exit_s = [(median(with_exits[point]) - median(samples[point])) / len(card.exits) for point in samples if card.exits]
    return Measured(
        calls=_grid(samples, new_tokens, contexts),
        prefill=await _measure_prefill(target, contexts, repeats, random),
        exit_s=max(0.0, median(exit_s)) if exit_s else 0.0,
        head_share=min(max(1.0 - median(shares), 0.0), 1.0) if shares else 0.0,
        cv=_spread(samples),
    )


async def _pass(seat: Seat, tokens: list[int], exits: tuple[int, ...]) -> tuple[float, list[tuple[int, float]]]:
    """One pass over a tip and a chain; its seconds, and for each exit its layer and when it spoke."""
    heard: list[tuple[int, float]] = []
    chain = tuple(range(-1, len(tokens) - 2))
    with _Timer() as timer:
        batch = Pass((tokens[0],), tuple(tokens[1:]), chain, exits)
        await seat.verify(batch, lambda reading: heard.append((reading.layer, timer.so_far())))
    seat.keep(())
    return timer.seconds, heard


async def _measure_prefill(target: Target, contexts: Sequence[int], repeats: int, random: Random) -> Grid:
    card = target.card
    most = min(card.prefill_chunk, card.context - max(contexts) - 1)
    sizes = [size for size in (1, 8, 32, 128, 512) if size < most] + [most]
    samples: Samples = {}
    for repeat in range(repeats // 3 + 1):
        for context in contexts:
            for size in sizes:
                text = _tokens(random, context + size, card.vocab_size)
                seat = await target.seat(text, _SAMPLING)
                await _prefill(seat, text[:context], card.prefill_chunk)
                with _Timer() as timer:
                    await seat.prefill(text[context:])
                seat.close()
                if repeat:
                    samples.setdefault((context, size), []).append(timer.seconds)
    return _grid(samples, sizes, contexts)


async def _prefill(seat: Seat, tokens: Sequence[int], chunk: int) -> None:
    for start in range(seat.cached, len(tokens), chunk):
        await seat.prefill(tokens[start : start + chunk])


class _Timer:
    """Seconds that pass in its block."""

    def __enter__(self) -> "_Timer":
        self._clock = fine_clock(asyncio.get_running_loop())
        self._start_s = self._clock()
        return self

    def so_far(self) -> float:
        return self._clock() - self._start_s

    def __exit__(self, *_: object) -> None:
        self.seconds = self.so_far()


def _check(counts: Sequence[int], contexts: Sequence[int], repeats: int) -> None:
    if not counts or not contexts or min(*counts, *contexts) < 1 or repeats < 3:
        what = f"counts {list(counts)}, contexts {list(contexts)}, {repeats} repeats"
        raise ConfigError(f"cannot measure {what}: each at least 1, and at least 3 repeats")


def _tokens(random: Random, count: int, vocab_size: int) -> list[int]:
    return [random.randrange(vocab_size) for _ in range(count)]


def _grid(samples: Samples, counts: Sequence[int], contexts: Sequence[int]) -> Grid:
    rows = tuple(tuple(round(median(samples[context, count]), 7) for count in counts) for context in contexts)
    reach = Range(new_tokens=(min(counts), max(counts)), context=(0, max(contexts)))
    return Grid(new_tokens=tuple(counts), context=tuple(contexts), seconds_s=(rows,), range=reach)


def _spread(samples: Samples) -> float:
    """The median over the points of half the distance from the 16th to the 84th percentile, over the median."""
    spreads = []
    for taken in samples.values():
        cuts = quantiles(taken, n=25)  # every 4 percent
        spreads.append((cuts[20] - cuts[3]) / 2 / median(taken))
    return median(spreads)
