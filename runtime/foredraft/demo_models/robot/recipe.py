"""The recipe of the pair with eyes: `python -m foredraft.demo_models.robot.recipe`.

Tokenizer, target, draft, exits, judge, card; resumed and cut by time as the other pair's recipe.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from foredraft.demo_models.pair import Pair
from foredraft.demo_models.plan import Plan
from foredraft.demo_models.recipe import Ledger, deliver, plan_of, tell
from foredraft.demo_models.robot import ROBOT

MAX_MINUTES = 75.0
"""The most that the recipe may take on two cores."""

TARGET_SHARES, DRAFT_SHARES, EXITS_SHARE = (0.20, 0.56), (0.03, 0.11), 0.02
"""Shares of the time for the trainings, of eyes alone and then of the whole; the rest is for the judge."""


def make_pair(plan: Plan) -> Pair:
    """Run every step of the recipe and copy the result to `plan.out`; the pair that lies there."""
    # Waiting threads that spin slow each other down on a machine that others use; read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from foredraft.demo_models.robot import card, steps

    plan.work.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(plan.work / "durations_s.json")
    made = Pair.below(plan.work / "pair")
    seconds = plan.minutes * 60
    with ledger.step("tokenizer"):
        tokenizer = steps.learn(made)
    with ledger.step("target"):
        steps.train_target(plan, tokenizer, made, *(seconds * share for share in TARGET_SHARES))
    with ledger.step("draft"):
        steps.train_draft(plan, tokenizer, made, *(seconds * share for share in DRAFT_SHARES))
    with ledger.step("exits"):
        steps.train_pair_exits(plan, tokenizer, made, plan.minutes * EXITS_SHARE)
    with ledger.step("judge"):
        judged = steps.judge(plan, made)
    card.write(judged, made, ledger.durations_s, plan.note)
    return deliver(made, plan.out)


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 when every required figure was reached, 1 when the card names some that were not."""
    parser = argparse.ArgumentParser(prog="python -m foredraft.demo_models.robot.recipe", description=__doc__)
    parser.add_argument(
        "--worlds",
        dest="samples",
        metavar="WORLDS",
        type=int,
        default=200,
        help="held-out worlds for the judge, at most 200",
    )
    plan = plan_of(parser, arguments, Plan(Path(".demo-models/robot"), ROBOT, minutes=70.0), MAX_MINUTES)
    return tell(make_pair(plan))


if __name__ == "__main__":
    import torch

    torch.set_flush_denormal(True)  # of the whole process, so the command's alone; denormal gradients are slow
    sys.exit(main())
