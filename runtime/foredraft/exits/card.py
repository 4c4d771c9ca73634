"""The card beside a set of exit heads: whose they are, how they were made, and how far to trust them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from foredraft.errors import ModelError

CARD_FILE: Final = "card.json"
CARD_FORMAT: Final = 1
TABLE_SIZE: Final = 64  # steps of a confidence table


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a layer's confidence follows from its margin, at one temperature (see ``calibrate``)."""

    temperature: float
    table: tuple[float, ...]


class Operating(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a threshold gives: ``coverage`` is the share of tokens at or above it, ``precision`` how many are right.

    ``precision`` is None where nothing reaches the threshold.
    """

    threshold: float
    coverage: float
    precision: float | None


class LayerReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How good one exit is at one temperature, on text that neither training nor calibration saw.

    ``agreement``: the share of its tokens that equal the whole model's, noise included.
    ``calibration_error``: expected calibration error, 15 bins of equal width.
    """

    layer: int
    temperature: float
    tokens: int
    agreement: float
    calibration_error: float
    operating: tuple[Operating, ...]


class Distance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Mean divergence (nats per token, temperature 1) of a layer's head from the whole model, on held-out text."""

    layer: int
    before: float
    after: float


class ExitCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The card. ``calibration[i]`` belongs to ``layers[i]``, temperatures ascending. Digests are SHA-256, in hex."""

    format: int
    model: str
    model_digest: str
    model_layers: int
    layers: tuple[int, ...]
    rank: int
    weights_digest: str
    text_digest: str
    text_tokens: int
    held_out_tokens: int
    steps: int
    seed: int
    distance: tuple[Distance, ...]
    calibration: tuple[tuple[Calibration, ...], ...]
    report: tuple[LayerReport, ...]

    @property
    def calibration_error(self) -> float:
        """The worst calibration error of the report."""
        return max(entry.calibration_error for entry in self.report)


def read_card(folder: Path) -> ExitCard:
    """The card in ``folder``. Raises ModelError where there is none, or none that can be used."""
    path = folder / CARD_FILE
    try:
        card = msgspec.json.decode(path.read_bytes(), type=ExitCard)
    except FileNotFoundError as error:
        raise ModelError(f"no exit heads in {folder}: {CARD_FILE} is missing; see `foredraft exits train`") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read the card {path}: {error}") from error
    if card.format != CARD_FORMAT:
        raise ModelError(f"{path} has format {card.format}; this version reads {CARD_FORMAT}: train the exits again")
    if not card.layers or list(card.layers) != sorted(set(card.layers)):
        raise ModelError(f"{path} lists the layers {card.layers}, which do not ascend")
    tables = [calibration.table for of_layer in card.calibration for calibration in of_layer]
    if len(card.calibration) != len(card.layers) or not all(card.calibration) or {*map(len, tables)} != {TABLE_SIZE}:
        raise ModelError(f"{path} does not hold a calibration of {TABLE_SIZE} steps for each of its layers")
    return card


def write_card(folder: Path, card: ExitCard) -> None:
    """Write the card, readable by people too."""
    write_atomically(folder / CARD_FILE, msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that whoever looks sees the old one or the new one, whole, even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
