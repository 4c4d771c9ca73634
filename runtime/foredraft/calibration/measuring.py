"""Measuring an engine on this machine: how long its steps and passes take.

Works on any Drafter or Target, through the same ports as the session. Calls are timed from the
event loop, so that thread hops are in them. The points are measured in turns, round after round
in a new order, so that a disturbance of the machine meets all of them alike; the first round
warms up and is thrown away. Half-way points, which no curve is fitted to, are measured among the others.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median
from typing import Final, Self

from foredraft.calibration.fitting import Call, Samples, between
from foredraft.engines.device import fine_clock
from foredraft.errors import ConfigError
from foredraft.protocol.ports import Drafter, Pass, Slot, Target
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import DraftTree, Node

Progress = Callable[[float], None]
"""Told which share of the measurement is done."""

_SAMPLING: Final = Sampling()
_WIDTH: Final = 4  # guesses asked of each node
_PREFILLS: Final = (1, 8, 32, 128, 512)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured: ``tokens`` new ones over each of ``contexts``, and how often. Raises ConfigError."""

    tokens: tuple[int, ...]
    contexts: tuple[int, ...]
    repeats: int = 25

    def __post_init__(self) -> None:
        counts = *self.tokens, *self.contexts
        if not self.tokens or not self.contexts or min(counts) < 1 or self.repeats < 3:
            what = f"tokens {list(self.tokens)}, contexts {list(self.contexts)}, {self.repeats} repeats"
            raise ConfigError(f"cannot measure {what}: each at least 1, and at least 3 repeats")

    def counts(self, context: int) -> tuple[int, ...]:
        """Which numbers of tokens are measured over a context."""
        return self.tokens if context in self.contexts else between(self.tokens)

    def every_context(self) -> tuple[int, ...]:
        """The contexts, and those half-way."""
        return (*self.contexts, *between(self.contexts)) if between(self.tokens) else self.contexts

    def check(self, longest: int) -> None:
        """Raise ConfigError unless every call fits into a text of ``longest`` tokens."""
        needed = max(self.contexts) + max(self.tokens)
        if needed > longest:
            raise ConfigError(
                f"{max(self.tokens)} tokens over a context of {max(self.contexts)} are {needed}, more than the model's "
                f"context of {longest}; ask for shorter --contexts"
            )


@dataclass(slots=True)
class Taken:
    """Seconds of calls: those that curves are fitted to, and those that the fit is judged by."""

    plan: Plan
    fitted: Samples = field(default_factory=dict)
    held_out: Samples = field(default_factory=dict)

    def add(self, call: Call, seconds: float, *, held_out: bool) -> None:
        """One more call."""
        (self.held_out if held_out else self.fitted).setdefault(call, []).append(seconds)


@dataclass(slots=True)
class Spoken:
    """When exits spoke: for each layer the shares of their passes, and how many passes' ends they did not precede."""

    shares: dict[int, list[float]] = field(default_factory=dict)
    late: int = 0

    def head_share(self, layers: int) -> float:
        """The part of a pass after the last layer, as far as the exits' moments say."""
        found = [share * layers / layer for layer, shares in self.shares.items() for share in shares]
        return min(max(1.0 - median(found), 0.0), 1.0) if found else 0.0


@dataclass(slots=True)
class TargetTaken:
    """What was measured of a target. ``exit_s``: what each reading of an exit adds to a pass."""

    passes: Taken
    prefills: Taken
    spoken: Spoken
    exit_s: float = 0.0


@dataclass(slots=True)
class DrafterTaken:
    """What was measured of a drafter."""

    steps: Taken
    prefills: Taken


def prefill_plan(plan: Plan, longest: int, chunk: int) -> Plan:
    """Prefills up to the engine's chunk, over the plan's contexts as far as they leave room for one."""
    chunk = min(chunk, longest // 2)
    contexts = tuple(sorted({min(context, longest - chunk) for context in plan.contexts}))
    return Plan((*(size for size in _PREFILLS if size < chunk), chunk), contexts, plan.repeats)


async def measure_drafter(
    drafter: Drafter, plan: Plan, *, vocab_size: int, context: int, chunk: int = 256, progress: Progress | None = None
) -> DrafterTaken:
    """Draft steps, and first steps over prompts. ``context``: the longest text. Raises ConfigError.

    A step of up to two tokens is a chain (a bonus token, and the tip below it); more hang side by side
    below the tip. Four guesses a node, greedy.
    """
    plan.check(context)
    prompts = prefill_plan(plan, context, chunk)
    taken = DrafterTaken(Taken(plan), Taken(prompts))
    random = Random(0)
    base = random_tokens(random, context, vocab_size)
    for turn in range(plan.repeats + 1):
        for held in random.sample(every := plan.every_context(), len(every)):
            await drafter.begin(base[:held], _SAMPLING)
            await drafter.draft([DraftTree(base[:held]).root], _WIDTH)  # the cache catches up
            for count in random.sample(counts := plan.counts(held), len(counts)):
                seconds = await _step(drafter, base[:held], random.sample(range(vocab_size), count))
                if turn:
                    taken.steps.add(Call(count, held), seconds, held_out=held not in plan.contexts)
        if turn % 3 == 0 or plan.repeats < 9:
            await _first_steps(drafter, taken.prefills, base, random, keep=turn > 0)
        _tell(progress, turn, plan.repeats)
    return taken


async def _step(drafter: Drafter, text: list[int], tokens: list[int]) -> float:
    """Seconds of a step over nodes that the cache lacks; the cache's text stays as it is."""
    await drafter.begin(text, _SAMPLING)
    tree = DraftTree(text)
    await drafter.draft([tree.root], 1)  # what the last step left in the cache is gone, what the root needs is there
    wanted: list[Node] = []
    if len(tokens) <= 2:
        node = tree.root
        for token in tokens:
            node = tree.add(node, token)
        wanted.append(node)
    else:
        wanted += [tree.add(tree.root, token) for token in tokens]
    with Stopwatch() as timer:
        await drafter.draft(wanted, _WIDTH)
    return timer.seconds


async def _first_steps(drafter: Drafter, taken: Taken, base: list[int], random: Random, *, keep: bool) -> None:
    """A first step over each number of new tokens and each context."""
    for held in taken.plan.every_context():
        for count in taken.plan.counts(held):
            new = [random.choice(base) for _ in range(count)]
            seconds = await _first_step(drafter, base[:held], new)
            if keep:
                taken.add(Call(count, held), seconds, held_out=held not in taken.plan.contexts)


async def _first_step(drafter: Drafter, text: list[int], tokens: list[int]) -> float:
    """Seconds of the first step when the text has grown by ``tokens``."""
    await drafter.begin(text, _SAMPLING)
    await drafter.draft([DraftTree(text).root], 1)
    await drafter.begin(text + tokens, _SAMPLING)
    with Stopwatch() as timer:
        await drafter.draft([DraftTree(text + tokens).root], _WIDTH)
    return timer.seconds


async def measure_target(target: Target, plan: Plan, *, progress: Progress | None = None) -> TargetTaken:
    """Passes over the tip and a chain of draft nodes, with and without exits, and prefills. Raises ConfigError.

    What exits add is the difference to passes without them, from pass to pass.
    """
    card = target.card
    plan.check(card.context)
    if max(plan.tokens) > card.max_pass_nodes + 1:
        raise ConfigError(f"{max(plan.tokens)} tokens in a pass; this target takes {card.max_pass_nodes + 1}")
    prefills = prefill_plan(plan, card.context, card.prefill_chunk)
    taken = TargetTaken(Taken(plan), Taken(prefills), Spoken())
    random = Random(0)
    texts = {
        held: random_tokens(random, held, card.vocab_size)
        for held in {*plan.every_context(), *prefills.every_context()}
    }
    extras_s: list[float] = []
    for turn in range(plan.repeats + 1):
        for held in random.sample(every := plan.every_context(), len(every)):
            text = texts[held]
            await _pass(target, text, text[:1], ())  # this context's rows are near again
            for count in random.sample(counts := plan.counts(held), len(counts)):
                tokens = random_tokens(random, count, card.vocab_size)
                bare_s, _ = await _pass(target, text, tokens, ())
                if turn:
                    taken.passes.add(Call(count, held), bare_s, held_out=held not in plan.contexts)
                if card.exits:
                    took_s, heard = await _pass(target, text, tokens, card.exits)
                    if turn:
                        extras_s.append((took_s - bare_s) / len(card.exits))
                        _note(taken.spoken, card.exits, heard, took_s)
        if turn % 3 == 0 or plan.repeats < 9:
            await _prefills(target, taken.prefills, texts, random, keep=turn > 0)
        _tell(progress, turn, plan.repeats)
    taken.exit_s = max(0.0, median(extras_s)) if extras_s else 0.0
    return taken


async def slot_over(target: Target, text: list[int], tip: int) -> Slot:
    """A slot whose cache holds ``text``, with ``tip`` still to run."""
    slot = await target.slot([*text, tip], _SAMPLING)
    chunk = target.card.prefill_chunk
    for start in range(slot.cached, len(text), chunk):
        await slot.prefill(text[start : start + chunk])
    return slot


async def _pass(
    target: Target, text: list[int], tokens: Sequence[int], exits: tuple[int, ...]
) -> tuple[float, list[tuple[int, float]]]:
    """One pass over a tip and a chain, over ``text``; its seconds, and for each exit its layer and when it spoke."""
    heard: list[tuple[int, float]] = []
    batch = Pass((tokens[0],), tuple(tokens[1:]), tuple(range(-1, len(tokens) - 2)), exits)
    slot = await slot_over(target, text, tokens[0])  # anew each time: a pass leaves its tip in the cache
    with Stopwatch() as timer:
        await slot.verify(batch, lambda prediction: heard.append((prediction.layer, timer.so_far())))
    slot.close()
    return timer.seconds, heard


def _note(spoken: Spoken, exits: tuple[int, ...], heard: list[tuple[int, float]], took_s: float) -> None:
    for layer, at_s in heard:
        spoken.shares.setdefault(layer, []).append(at_s / took_s if took_s else 1.0)
    spoken.late += len(heard) < len(exits) or any(at_s >= took_s for _, at_s in heard)


async def _prefills(
    target: Target, taken: Taken, texts: Mapping[int, list[int]], random: Random, *, keep: bool
) -> None:
    """A prefill of each size over each context. Caches of a common prefix are found again by the target."""
    for held in taken.plan.every_context():
        for count in taken.plan.counts(held):
            tokens = random_tokens(random, count, target.card.vocab_size)
            slot = await slot_over(target, texts[held], tokens[0])
            with Stopwatch() as timer:
                await slot.prefill(tokens)
            slot.close()
            if keep:
                taken.add(Call(count, held), timer.seconds, held_out=held not in taken.plan.contexts)


class Stopwatch:
    """Seconds that pass in its block."""

    def __enter__(self) -> Self:
        self._clock = fine_clock(asyncio.get_running_loop())
        self._start_s = self._clock()
        return self

    def so_far(self) -> float:
        """Seconds since the block began."""
        return self._clock() - self._start_s

    def __exit__(self, *_: object) -> None:
        self.seconds = self.so_far()


def _tell(progress: Progress | None, turn: int, repeats: int) -> None:
    if progress is not None:
        progress((turn + 1) / (repeats + 1))


def random_tokens(random: Random, count: int, vocab_size: int) -> list[int]:
    """So many ids, each as likely."""
    return [random.randrange(vocab_size) for _ in range(count)]
