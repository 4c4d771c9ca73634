"""The card and the README beside the pair: what was asked for, what was reached, on what machine, in how long."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
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
        return missed_of(self.figures, REQUIRED)


def write_card(card: Card, folder: Path) -> None:
    """Write `card.json` and `README.md` into `folder`."""
    write_files(asdict(card), card.missed, REQUIRED, _readme(card), folder)


Required = Mapping[str, tuple[float, float]]
"""The least and the most of figures, by name."""

Figures = Mapping[str, float | None]


def missed_of(figures: Figures, required: Required) -> list[str]:
    """The required figures that are unknown or out of their range."""
    values = {name: figures.get(name) for name in required}
    return [name for name, value in values.items() if value is None or not _within(value, required[name])]


def write_files(card: dict[str, Any], missed: list[str], required: Required, readme: str, folder: Path) -> None:
    """Write `card.json` and `README.md` into `folder`."""
    limits = {name: list(limits) for name, limits in required.items()}
    body = {"reached": not missed, "missed": missed, "required": limits, **card}
    (folder / "card.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(readme, encoding="utf-8")


def figure_rows(figures: Figures, meanings: Mapping[str, str], required: Required) -> str:
    """The table's rows: what each figure means, what was asked for, what was reached, whether that meets it."""
    missed = missed_of(figures, required)
    rows = []
    for name, meaning in meanings.items():
        value = figures.get(name)
        reached = "not measured" if value is None else f"{value:.3g}"
        met = "" if name not in required else "no" if name in missed else "yes"
        rows.append(f"| {meaning} | {_asked(*required[name]) if name in required else ''} | {reached} | {met} |")
    return "\n".join(rows)


def took(durations_s: Mapping[str, float]) -> str:
    """How long the steps took that took long."""
    return ", ".join(f"{name} {seconds / 60:.0f} min" for name, seconds in durations_s.items() if seconds >= 30)


def listed(said: Mapping[str, Any]) -> str:
    """A list of what is said, by name."""
    return "\n".join(f"- {name.replace('_', ' ')}: {text}" for name, text in said.items())


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def _asked(low: float, high: float) -> str:
    return f"at least {low:g}" if high == 1.0 else f"at most {high:g}" if low == 0.0 else f"{low:g} to {high:g}"


def _processor() -> str:
    """The processor's name where the system tells, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _readme(card: Card) -> str:
    held_out = card.corpus["held_out_files"]
    files = held_out + card.corpus["train_files"]
    return f"""# The bundled pair

A target with early exits and a draft, both small Llama models that write Python in the style of the standard
library. They are here to try Foredraft with, not to write code with. Made by `make demo-models`; `card.json` holds
these figures for programs.

| figure | asked for | reached | met |
|---|---|---|---|
{figure_rows(card.figures, MEANINGS, REQUIRED)}

## How it was judged
{listed(card.conditions)}

## What they are
{listed(card.models)}

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
{took(card.durations_s)}; on {card.machine.processor}, {card.machine.cores} cores, {card.machine.system}.
{card.note}

The sources are under the PSF License Agreement; the weights are part of this project.
"""
