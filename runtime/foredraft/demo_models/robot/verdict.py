"""Judging the pair with eyes: episodes on held-out worlds, and how target, draft and exits agree on their way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer

from foredraft.demo_models.judge import Guesses, Tally, replay
from foredraft.demo_models.pair import Pair
from foredraft.demo_models.robot.batches import Collator, look, read
from foredraft.demo_models.robot.drive import Driver, drive, expert
from foredraft.demo_models.robot.losses import answered, answering
from foredraft.demo_models.robot.models import load
from foredraft.demo_models.robot.views import Lesson
from foredraft.robot.walk import Episode
from foredraft.robot.world import counts, make_world

HELD_OUT = range(200)
"""Seeds of the worlds that the pair is judged on; no training sees them."""

GAMMA = 4
"""Draft tokens in a chain."""

OnProgress = Callable[[float, float, str], None]


@dataclass(frozen=True, slots=True)
class Judged:
    """Shares of the worlds in which each planner succeeded; the target's plans: passes over them, how many a world.

    `named` and `counted`: the target's share by how the instruction says the goal.
    """

    worlds: int
    target: float
    named: float
    counted: float
    draft: float
    expert: float
    blind: float
    passes: Tally
    plans: int
    decisions: float


def judge_pair(pair: Pair, worlds: int, show: OnProgress) -> Judged:
    """Let each planner loose in the first held-out worlds, then draft what the target said once more."""
    made = [make_world(seed) for seed in HELD_OUT[:worlds]]
    tokenizer = Tokenizer.from_file(str(pair.target / "tokenizer.json"))
    target, draft = load(pair.target), load(pair.draft)
    drivers = {
        "target": Driver(target, tokenizer),
        "draft": Driver(draft, tokenizer),
        "blind": Driver(target, tokenizer, blind=True),
    }
    ended: dict[str, list[Episode]] = {}
    for done, (name, driver) in enumerate(drivers.items()):
        show(done, len(drivers) + 1, name)
        ended[name] = drive(made, driver)
    show(len(drivers), len(drivers) + 1, "passes")
    said = drivers["target"].said
    return Judged(
        worlds=len(made),
        target=_share(ended["target"]),
        named=_share([one for one in ended["target"] if not counts(one.world)]),
        counted=_share([one for one in ended["target"] if counts(one.world)]),
        draft=_share(ended["draft"]),
        expert=_share(drive(made, expert)),
        blind=_share(ended["blind"]),
        passes=sum((replay(one, GAMMA) for one in guess(draft, tokenizer, said)), Tally()),
        plans=len(said),
        decisions=len(said) / max(1, len(made)),
    )


def _share(episodes: Sequence[Episode]) -> float:
    return sum(one.succeeded for one in episodes) / max(1, len(episodes))


@torch.no_grad()
def guess(draft: Any, tokenizer: Tokenizer, said: Sequence[Lesson]) -> list[Guesses]:
    """What the draft would have said at each token of the target's plans, given those before it.

    At temperature 0 that is all a chain needs: it goes on only while it equals what the target says.
    """
    collator, found = Collator(tokenizer), list[Guesses]()
    for start in range(0, len(said), 64):
        batch = collator.collate(said[start : start + 64])
        drafted = draft.lm_head(answering(read(draft, batch, look(draft, batch))[-1], batch)).argmax(-1)
        lengths = batch.answers.sum(1).tolist()
        parts = (torch.split(tokens, lengths) for tokens in (answered(batch), drafted))
        found += [Guesses(one.tolist(), other.tolist()) for one, other in zip(*parts, strict=True)]
    return found
