"""The card and the README beside the pair: what was asked for, what was reached, on what machine, in how long."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from foredraft.demo_models.corpus import HELD_OUT_ONE_IN, MAX_NESTING, MAX_STATEMENT_CHARS, MAX_STRING_CHARS
from foredraft.demo_models.losses import GRAMMAR_WEIGHT

GAMMA = 4
"""Draft tokens per chain in the card's figures."""

REQUIRED: dict[str, tuple[float, float]] = {
    "tokenize_pass_rate": (0.80, 1.0),
    "tokens_per_pass": (2.0, 3.5),
    "hint_precision": (0.75, 1.0),
    "hint_share": (0.40, 1.0),
    "draft_speedup": (4.0, 10.0),
    "size_mb": (0.0, 20.0),
}
"""What the pair has to reach: the least and the most of each figure."""

MEANINGS = {
    "tokenize_pass_rate": "share of 20-line samples that Python's `tokenize` accepts",
    "tokens_per_pass": f"tokens committed per target pass, chains of {GAMMA} drafts",
    "hint_precision": "share of the hints at half depth that were right, of those sent",
    "hint_share": "share of the passes for which a hint at half depth was sent",
    "draft_speedup": "time of a one-token step of the target (transformers, one thread), over that of the draft",
    "size_mb": "target, exits and draft together, MB (10^6 bytes)",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the figures were measured."""

    processor: str = field(default_factory=lambda: _processor())
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)
    system: str = field(default_factory=lambda: f"{platform.system()} {platform.machine()}")
    python: str = field(default_factory=platform.python_version)


@dataclass(frozen=True, slots=True)
class Card:
    """Everything that `card.json` says. Figures that are not known (yet) are None."""

    figures: dict[str, float | None]
    conditions: dict[str, Any]
    models: dict[str, Any]
    corpus: dict[str, Any]
    durations_s: dict[str, float]
    note: str = ""
    hints: list[dict[str, float]] = field(default_factory=list)
    machine: Machine = field(default_factory=Machine)

    @property
    def missed(self) -> list[str]:
        """The required figures that are unknown or out of their range."""
        values = {name: self.figures.get(name) for name in REQUIRED}
        return [name for name, value in values.items() if value is None or not _within(value, REQUIRED[name])]


def write_card(card: Card, folder: Path) -> None:
    """Write `card.json` and `README.md` into `folder`."""
    required = {name: list(limits) for name, limits in REQUIRED.items()}
    body = {"reached": not card.missed, "missed": card.missed, "required": required, **asdict(card)}
    (folder / "card.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(card), encoding="utf-8")


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def _processor() -> str:
    """The processor's name where the system tells, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _row(card: Card, name: str) -> str:
    low, high = REQUIRED[name]
    value = card.figures.get(name)
    asked = f"at least {low:g}" if high == 1.0 else f"at most {high:g}" if low == 0.0 else f"{low:g} to {high:g}"
    reached = "not measured" if value is None else f"{value:.3g}"
    verdict = "no" if name in card.missed else "yes"
    return f"| {MEANINGS[name]} | {asked} | {reached} | {verdict} |"


def _readme(card: Card) -> str:
    rows = "\n".join(_row(card, name) for name in REQUIRED)
    took = ", ".join(f"{name} {seconds / 60:.0f} min" for name, seconds in card.durations_s.items() if seconds >= 30)
    conditions = "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in card.conditions.items())
    models = "\n".join(f"- {name}: {text}" for name, text in card.models.items())
    held_out = card.corpus["held_out_files"]
    files = held_out + card.corpus["train_files"]
    return f"""# The bundled pair

A target with early exits and a draft, both small Llama models that write Python in the style of the standard
library. They are here to try Foredraft with, not to write code with. Made by `make demo-models`; `card.json` holds
these figures for programs.

| figure | asked for | reached | met |
|---|---|---|---|
{rows}

## How it was judged
{conditions}

## What they are
{models}

Both learned from the sources of Python {card.machine.python}'s standard library, *normalised* (see `corpus.py`): no
docstrings, no comments, every statement written anew by `ast.unparse`, one logical line to a physical one; strings
cut to {MAX_STRING_CHARS} plain characters; no line of more than {MAX_STATEMENT_CHARS} characters, dent aside, and
none that nests brackets more than {MAX_NESTING} deep. The models know no other style; prompts in it are continued best.

One file in {HELD_OUT_ONE_IN}, chosen by a hash of its path, was held out: {held_out} of {files} files. The
samples' prompts come from those alone, normalised too. The rest made
{card.corpus["train_tokens"]:,} tokens to train on.

In the target's training it weighed {GRAMMAR_WEIGHT:g} times more that a token comes which the corpus's style permits
(brackets, strings, dents: `grammar.py`) than which of those it is. No grammar is used when text is written.

## What it took
{took}; on {card.machine.processor}, {card.machine.cores} cores, {card.machine.system}.
{card.note}

The sources are under the PSF License Agreement; the weights are part of this project.
"""
