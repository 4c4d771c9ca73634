"""The recipe of the pair with eyes: `python -m foredraft.demo_models.robot.recipe`.

Tokenizer, target, draft, exits, judge, card; resumed and cut by time as the other pair's recipe.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from foredraft.demo_models.pair import Pair
from foredraft.demo_models.plan import Plan
from foredraft.demo_models.recipe import Ledger, deliver
from foredraft.demo_models.robot import ROBOT

MAX_MINUTES = 75.0
"""The most that the recipe may take on two cores."""

TARGET_SHARES, DRAFT_SHARES, EXITS_SHARE = (0.12, 0.64), (0.03, 0.11), 0.02
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
    parser.add_argument("--minutes", type=float, default=70.0, help="time for the whole recipe (default 70)")
    parser.add_argument("--work", type=Path, default=Path(".demo-models/robot"), help="folder for checkpoints")
    parser.add_argument("--out", type=Path, default=ROBOT, help="where the pair goes (default: the package)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="most threads to use")
    parser.add_argument("--worlds", type=int, default=200, help="held-out worlds for the judge, at most 200")
    parser.add_argument("--note", default="", help="a sentence for the card, about how this run differed")
    given = parser.parse_args(arguments)
    if not 0 < given.minutes <= MAX_MINUTES:
        parser.error(f"--minutes must be above 0 and at most {MAX_MINUTES:g}")
    plan = Plan(given.work, given.out, given.minutes, given.seed, given.threads, given.worlds, given.note)
    pair = make_pair(plan)
    card = json.loads(pair.card.read_text("utf-8"))
    print(pair.card.with_name("README.md").read_text("utf-8"))
    for name in card["missed"]:
        print(f"not reached: {name} {card['figures'][name]} (required: {card['required'][name]})", file=sys.stderr)
    return 0 if card["reached"] else 1


if __name__ == "__main__":
    import torch

    torch.set_flush_denormal(True)  # of the whole process, so the command's alone; denormal gradients are slow
    sys.exit(main())
