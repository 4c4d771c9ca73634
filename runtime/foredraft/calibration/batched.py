"""Forwards that several sessions share, as the engine forms them: passes together, and prefills beside passes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median
from typing import Final, NamedTuple

from foredraft.calibration.fitting import Call, between
from foredraft.calibration.measuring import Plan, Progress, Stopwatch, Taken, random_tokens, slot_over
from foredraft.engines.device import Work
from foredraft.engines.pace import Pace
from foredraft.errors import RefusedError
from foredraft.profiles.schema import TargetProfile
from foredraft.protocol.ports import Pass, Prediction, Slot, Target

_BESIDE: Final = (16, 64)
"""Rows of prefills beside passes, and besides a whole chunk."""


class Mixed(NamedTuple):
    """A prefill of ``unread`` rows beside ``passes`` of one row, all over ``context`` tokens each."""

    unread: int
    passes: int
    context: int


@dataclass(slots=True)
class Shared:
    """Seconds of forwards that several sessions shared. ``left_out``: what the target had no memory for."""

    passes: Taken
    mixed: dict[Mixed, list[float]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def mixed_errors(self, profile: TargetProfile) -> dict[Mixed, float]:
        """How far the profile is off where prefills ran beside passes, which it was not fitted to."""
        pace = Pace(profile, None, "warn")
        found = {}
        for one, taken_s in self.mixed.items():
            beside = [Work("pass", 1, one.context, 0, pace) for _ in range(one.passes)]
            said_s = pace.batch_s([Work("prefill", one.unread, one.context, 0, pace), *beside])
            found[one] = (said_s - profile.target_pass.host_s) / median(taken_s) - 1.0
        return found


async def measure_batches(
    target: Target, plan: Plan, batches: Sequence[int], *, progress: Progress | None = None
) -> Shared:
    """Passes of ``plan.tokens`` per session over ``plan.contexts``, ``batches`` of them at once, each over a text.

    New tokens and context of a call are sums over its batch, as in a profile.
    """
    shared, random = Shared(Taken(plan)), Random(0)
    cases = [(batch, held, False) for batch in batches for held in plan.contexts]
    cases += [(batch, held, True) for batch in between(batches) for held in between(plan.contexts) or plan.contexts]
    for turn in range(plan.repeats + 1):
        for batch, held, held_out in random.sample(cases, len(cases)):
            texts = [
                [(7 * number + 31 * place) % target.card.vocab_size for place in range(held)] for number in range(batch)
            ]
            try:
                await _measure(target, texts, held_out, shared, random, turn)
            except RefusedError as error:
                shared.left_out.append(f"a batch of {batch} over {held} tokens each ({error})")
                cases.remove((batch, held, held_out))
        if progress is not None:
            progress((turn + 1) / (plan.repeats + 1))
    return shared


async def _measure(
    target: Target, texts: Sequence[list[int]], held_out: bool, shared: Shared, random: Random, turn: int
) -> None:
    """All that is measured over these texts, once; the first turn warms up."""
    plan, card = shared.passes.plan, target.card
    batch, held = len(texts), len(texts[0])
    counts = between(plan.tokens) or plan.tokens if held_out else plan.tokens
    for count in random.sample(counts, len(counts)):
        took_s = await _together(target, texts, [random_tokens(random, count, card.vocab_size)] * batch)
        if turn:
            shared.passes.add(Call(count * batch, held * batch, batch), took_s, held_out=held_out)
    if held_out or (turn % 3 and plan.repeats >= 9):
        return
    chunk = min(card.prefill_chunk, card.context - held)
    for size in (*(size for size in _BESIDE if size < chunk), chunk):
        prompt = random_tokens(random, size, card.vocab_size)
        took_s = await _together(target, texts, [[1]] * (batch - 1), prompt)
        if turn:
            shared.mixed.setdefault(Mixed(size, batch - 1, held), []).append(took_s)


async def _together(
    target: Target, texts: Sequence[list[int]], passes: Sequence[list[int]], prefill: Sequence[int] = ()
) -> float:
    """Seconds of the one forward of a pass over each text, and of a prefill over the last one where it is given."""
    tips = [*(tokens[0] for tokens in passes), *prefill[:1]]
    slots: list[Slot] = []
    try:
        for text, tip in zip(texts, tips, strict=True):
            slots.append(await slot_over(target, text, tip))
        calls = [
            slot.verify(Pass((tokens[0],), tuple(tokens[1:]), tuple(range(-1, len(tokens) - 2))), _ignore)
            for slot, tokens in zip(slots, passes, strict=False)
        ]
        with Stopwatch() as timer:
            done = await asyncio.gather(
                *calls, *([slots[-1].prefill(prefill)] if prefill else ()), return_exceptions=True
            )
        for one in done:
            if isinstance(one, BaseException):
                raise one
    finally:
        for slot in slots:
            slot.close()
    return timer.seconds


def _ignore(prediction: Prediction) -> None:
    """No exits are asked for."""
