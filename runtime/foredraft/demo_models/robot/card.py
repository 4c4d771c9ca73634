"""Filling in the card of a judged pair."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foredraft.demo_models.pair import Pair
from foredraft.demo_models.robot.language import GRID, IMAGE_TOKENS
from foredraft.demo_models.robot.models import load
from foredraft.demo_models.robot.report import Card, write_card
from foredraft.demo_models.robot.verdict import GAMMA, HELD_OUT, Judged
from foredraft.exits.card import LayerReport, Operating, read_card

HINT_PRECISION = 0.95
"""The hint threshold of the card's figures is the lowest one whose hints are right as often as this."""


def write(judged: Judged, pair: Pair, durations_s: Mapping[str, float], note: str = "") -> None:
    """Write card and README beside the pair. `note`: how this run differed from the recipe, if it did."""
    reports = [report for report in read_card(pair.exits).report if report.temperature == 0.0]
    chosen = operating(max(reports, key=lambda report: report.layer))
    figures = {
        "success_target": judged.target,
        "success_named": judged.named,
        "success_counted": judged.counted,
        "success_draft": judged.draft,
        "success_expert": judged.expert,
        "success_blind": judged.blind,
        "tokens_per_pass": judged.passes.tokens_per_pass,
        "hint_coverage": chosen.coverage,
        "hint_precision": chosen.precision,
        "size_mb": pair.size_bytes / 1e6,
    }
    card = Card(
        figures=figures,
        conditions=_conditions(judged, chosen.threshold),
        models=_models(pair),
        exits=[_exit(report) for report in reports],
        files={str(path.relative_to(pair.card.parent)): file_digest(path) for path in weights(pair)},
        durations_s=dict(durations_s),
        note=note,
    )
    write_card(card, pair.card.parent)


def operating(report: LayerReport) -> Operating:
    """The lowest threshold that is right often enough, or else the most precise one."""
    found = [one for one in report.operating if one.precision is not None]
    enough = [one for one in found if (one.precision or 0.0) >= HINT_PRECISION]
    return min(enough, key=lambda one: one.threshold) if enough else max(found, key=lambda one: one.precision or 0.0)


def weights(pair: Pair) -> list[Path]:
    """The files that hold what was trained."""
    return sorted(path for folder in (pair.target, pair.draft, pair.exits) for path in folder.glob("*.safetensors"))


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _conditions(judged: Judged, threshold: float) -> dict[str, Any]:
    return {
        "held_out_worlds": f"{judged.worlds}, seeds {HELD_OUT.start} to {HELD_OUT.start + judged.worlds - 1}",
        "decisions_of_the_target": f"{judged.plans}, {judged.decisions:.1f} a world",
        "temperature": 0.0,
        "draft_tokens_per_chain": GAMMA,
        "tokens_per_pass": "counted on the target's plans, the draft given what the target said before",
        "hints": f"threshold {threshold:g}, on other worlds than those above; the answers' tokens alone",
        "weights": "stored in float16, run in float32 by transformers",
    }


def _models(pair: Pair) -> dict[str, str]:
    layers = ", ".join(map(str, read_card(pair.exits).layers))
    depth = read_card(pair.exits).model_layers
    return {
        "target": _describe(pair.target),
        "draft": _describe(pair.draft),
        "exits": f"after layers {layers} of {depth}",
        "image": f"{GRID[1]} by {GRID[2]} patches, {IMAGE_TOKENS} tokens",
    }


def _describe(folder: Path) -> str:
    model = load(folder)
    text, eyes = model.config.text_config, model.config.vision_config
    count = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{count / 1e6:.2f} million parameters, {text.num_hidden_layers} layers of {text.hidden_size}, eyes of "
        f"{eyes.depth} layers of {eyes.embed_dim}, vocabulary {text.vocab_size}, context {text.max_position_embeddings}"
    )


def _exit(report: LayerReport) -> dict[str, Any]:
    hints = [
        {"threshold": one.threshold, "coverage": one.coverage, "precision": one.precision} for one in report.operating
    ]
    return {"layer": report.layer, "tokens": report.tokens, "agreement": report.agreement, "hints": hints}
