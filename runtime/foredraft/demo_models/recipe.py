"""The recipe of the bundled pair: `python -m foredraft.demo_models.recipe`.

Tokenizer, target, draft, exits, judge, card. Each step leaves its result in the work folder and is skipped, or goes
on from its last checkpoint, when that is there: an interrupted run is resumed by the same command. Delete the folder
to begin anew. The trainings are cut by time, so two runs do not give the same weights; everything else is seeded.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foredraft.demo_models.corpus import Corpus, load_corpus
from foredraft.demo_models.pair import BUNDLED, Pair
from foredraft.demo_models.plan import Plan

MAX_MINUTES = 90.0
"""The most that the recipe may take on two cores."""

TARGET_SHARE, DRAFT_SHARE, EXITS_SHARE = 0.60, 0.20, 0.06
"""Shares of the time for the three trainings; the rest is for corpus, tokenizer and judge."""


class Ledger:
    """What the steps took, in seconds, kept in a file so that a resumed run still knows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.durations_s: dict[str, float] = json.loads(path.read_text("utf-8")) if path.is_file() else {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step, adding to what an interrupted run spent on it."""
        print(f"{name} ...", flush=True)
        began_s = time.monotonic()
        try:
            yield
        finally:
            spent_s = time.monotonic() - began_s
            self.durations_s[name] = self.durations_s.get(name, 0.0) + spent_s
            self._path.write_text(json.dumps(self.durations_s, indent=2) + "\n", encoding="utf-8")
            print(f"{name}: {spent_s:.0f} s", flush=True)


def make_pair(plan: Plan, corpus: Corpus) -> Pair:
    """Run every step of the recipe and copy the result to `plan.out`; the pair that lies there."""
    # Waiting threads that spin slow each other down on a machine that others use; read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from foredraft.demo_models import steps

    plan.work.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(plan.work / "durations_s.json")
    made = Pair.below(plan.work / "pair")
    with ledger.step("tokenizer"):
        stream = steps.tokenize(plan, corpus, made)
    with ledger.step("target"):
        steps.train_target(plan, stream, made, plan.minutes * 60 * TARGET_SHARE)
    with ledger.step("draft"):
        steps.train_draft(plan, stream, made, plan.minutes * 60 * DRAFT_SHARE)
    with ledger.step("exits"):
        steps.train_pair_exits(plan, corpus, made, plan.minutes * EXITS_SHARE)
    with ledger.step("judge"):
        judged = steps.judge(plan, corpus, made)
    steps.write(judged, corpus, stream, made, ledger.durations_s, plan.note)
    return deliver(made, plan.out)


def deliver(made: Pair, out: Path) -> Pair:
    """Copy a finished pair, its card and its README to `out`, replacing the one that is there."""
    pair = Pair.below(out)
    for source, destination in ((made.target, pair.target), (made.exits, pair.exits), (made.draft, pair.draft)):
        shutil.rmtree(destination, ignore_errors=True)
        shutil.copytree(source, destination, ignore=shutil.ignore_patterns(".*"))
    for name in ("card.json", "README.md"):
        shutil.copyfile(made.card.with_name(name), pair.card.with_name(name))
    return pair


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 when every required figure was reached, 1 when the card names some that were not."""
    parser = argparse.ArgumentParser(prog="python -m foredraft.demo_models.recipe", description=__doc__)
    parser.add_argument("--samples", type=int, default=120, help="samples that the judge draws (at least)")
    plan = plan_of(parser, arguments, Plan(Path(".demo-models"), BUNDLED, minutes=80.0), MAX_MINUTES)
    return tell(make_pair(plan, load_corpus()))


def plan_of(parser: argparse.ArgumentParser, arguments: list[str] | None, usual: Plan, most_minutes: float) -> Plan:
    """The plan that these arguments ask for; ``usual``: what holds where they say nothing.

    ``parser`` knows the option for ``samples`` already, under a name of its own.
    """
    parser.add_argument(
        "--minutes", type=float, default=usual.minutes, help=f"time for the whole recipe (default {usual.minutes:g})"
    )
    parser.add_argument("--work", type=Path, default=usual.work, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, default=usual.out, help="where the pair goes (default: the package)")
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="most threads to use")
    parser.add_argument("--note", default="", help="a sentence for the card, about how this run differed")
    given = parser.parse_args(arguments)
    if not 0 < given.minutes <= most_minutes:
        parser.error(f"--minutes must be above 0 and at most {most_minutes:g}")
    return Plan(**vars(given))


def tell(pair: Pair) -> int:
    """Print the README of a pair that was made, and what it did not reach; the exit code."""
    card = json.loads(pair.card.read_text("utf-8"))
    print(pair.card.with_name("README.md").read_text("utf-8"))
    for name in card["missed"]:
        print(f"not reached: {name} {card['figures'][name]} (required: {card['required'][name]})", file=sys.stderr)
    return 0 if card["reached"] else 1


if __name__ == "__main__":
    import torch

    torch.set_flush_denormal(True)  # of the whole process, so the command's alone; denormal gradients are slow
    sys.exit(main())
