"""The card and the README beside the pair with eyes: what it is, what it is not, and what was reached."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any

from foredraft.demo_models.report import Machine, figure_rows, listed, missed_of, took, write_files
from foredraft.robot.camera import HEIGHT, WIDTH
from foredraft.robot.walk import MAX_DECISIONS
from foredraft.robot.world import FACING_DEG, STAND_M

REQUIRED: dict[str, tuple[float, float]] = {"success_target": (0.80, 1.0), "size_mb": (0.0, 12.0)}
"""What the pair has to reach: the least and the most of each figure."""

MEANINGS = {
    "success_target": "share of held-out worlds in which the target (greedy) leads the robot to its goal",
    "success_named": "the same where the instruction names the goal (three of five worlds)",
    "success_counted": "the same where it counts things from a side (two of five)",
    "success_draft": "share with the draft alone",
    "success_expert": "share with the expert, who knows the world",
    "success_blind": "share with the target shown an even grey",
    "tokens_per_pass": "tokens committed per target pass, chains of 4 drafts, temperature 0",
    "hint_coverage": "share of the tokens at which the later exit is sure enough to hint, temperature 0",
    "hint_precision": "share of those at which the whole target says the same",
    "size_mb": "target, exits and draft together, MB (10^6 bytes)",
}


@dataclass(frozen=True, slots=True)
class Card:
    """Everything that `card.json` says. Figures that are not known are None."""

    figures: dict[str, float | None]
    conditions: dict[str, Any]
    models: dict[str, str]
    exits: list[dict[str, Any]]
    files: dict[str, str]
    durations_s: dict[str, float]
    note: str = ""
    machine: Machine = field(default_factory=Machine)

    @property
    def missed(self) -> list[str]:
        """The required figures that are unknown or out of their range."""
        return missed_of(self.figures, REQUIRED)


def write_card(card: Card, folder: Path) -> None:
    """Write `card.json` and `README.md` into `folder`."""
    write_files(asdict(card), card.missed, REQUIRED, _readme(card), folder)


def _readme(card: Card) -> str:
    near, far = STAND_M
    return f"""# The pair with eyes

A target of Qwen2-VL's architecture with early exits, and a draft of it, that lead a walking robot about a drawn
world. Each is shown the robot's view ({WIDTH} by {HEIGHT} pixels) and an instruction ("go to the red chair", "stop in
front of the second box on the left") and answers with a short plan in JSON: what it sees, how far to turn and walk,
and whether it is there. Made by `python -m foredraft.demo_models.robot.recipe`; `card.json` holds these figures for
programs.

| figure | asked for | reached | met |
|---|---|---|---|
{figure_rows(card.figures, MEANINGS, REQUIRED)}

## What they are not
They have seen nothing but drawn chairs, boxes, balls and cones of four colours on one floor under the robot's two
lamps, one warm, one cool, and read nothing but the instructions of `foredraft.robot.world`. They do not know a
photograph, another camera, another sentence or another answer, and cannot lead a real robot. They are here so that
vision, drafts, hints and a loop of decisions can be tried without downloads. The expert that they learned from
searches to the right and walks straight: no world needs a way around things.

## What success is
Within {MAX_DECISIONS} decisions the plan says that it is done, the robot stands {near:g} to {far:g} m before its goal
(centre to centre), at most {FACING_DEG:g} degrees off the middle of its view, and has touched nothing. Steps are a
little off each time.

## How it was judged
{listed(card.conditions)}

## What they are like
{listed(card.models)}

Eyes and language models learned together from worlds drawn for each batch. While training, a helper layer asked the
eyes what is where, and which of its kind it is from either side; it is not kept. The target was trained to be read at
its exits too. The draft learned from the target's distribution, with small eyes of its own. Both share tokenizer,
patches and positions.

## What it took
{took(card.durations_s)}; on {card.machine.processor}, {card.machine.cores} cores, {card.machine.system}.
{fill(card.note, 116)}
"""
