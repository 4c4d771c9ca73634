"""``foredraft exits``: add early exits to a model, so that it can send hints, and see how good they are."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from foredraft.errors import ConfigError, ForedraftError
from foredraft.progress import Show, progress

if TYPE_CHECKING:
    from foredraft.exits.card import ExitCard
    from foredraft.exits.train import OnProgress

MAX_CALIBRATION_ERROR = 0.05

app = typer.Typer(help="Early exits: heads in the middle of a model that foresee what it will say.")


@app.callback()
def exits() -> None:
    """Early exits: heads in the middle of a model that foresee what it will say."""


@app.command()
def train(
    model: Annotated[str, typer.Option(help="Folder or hub id of a model.")],
    text: Annotated[list[str], typer.Option(help="File, folder or pattern; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Folder for the heads and their card.")],
    layers: Annotated[
        str,
        typer.Option(help="After how many layers to exit, e.g. 4,8.", show_default="a third and two thirds of them"),
    ] = "",
    more_text: Annotated[
        list[str] | None, typer.Argument(help="More of --text, so that a pattern that the shell expands works.")
    ] = None,
    held_out: Annotated[
        list[str] | None, typer.Option(help="Text to calibrate and judge by; else one window in eight of --text.")
    ] = None,
    rank: Annotated[int, typer.Option(help="Rank of each head's adapter; 0 for none.")] = 64,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 500,
    minutes: Annotated[float | None, typer.Option(help="Train no longer than this.")] = None,
    batch: Annotated[int, typer.Option(help="Windows per step.")] = 8,
    window: Annotated[int, typer.Option(help="Tokens per window.")] = 512,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    seed: Annotated[int, typer.Option(help="Seed of the data's order and of the adapters.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16, for the frozen model.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Train exit heads for a model whose own weights stay as they are.

    A run that was stopped goes on when the same command is given again.
    """
    console = Console(stderr=True)
    try:
        chosen = parse_layers(layers) if layers else None
        from foredraft.exits.data import find_files
        from foredraft.exits.train import train_exits

        with progress("exits", count=True) as show:
            card = train_exits(
                model,
                find_files([*text, *(more_text or [])]),
                chosen,
                out,
                held_out=find_files(held_out) if held_out else None,
                rank=rank,
                steps=steps,
                minutes=minutes,
                seed=seed,
                batch=batch,
                window=window,
                learning_rate=learning_rate,
                device=device,
                dtype=dtype,
                on_progress=_on_progress(show),
            )
    except ForedraftError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        console.print("stopped; the same command goes on from the last saved step")
        raise typer.Exit(130) from error
    _show(card, out, as_json)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of the heads.")],
    picture: Annotated[
        Path | None, typer.Option(help="Draw what share exits speak for and how often they are right (PNG or SVG).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
) -> None:
    """Say how good exits were on text that their training did not see."""
    from foredraft.exits.card import read_card

    card = read_card(folder)
    if picture is not None:
        from foredraft.exits.picture import draw

        draw(card, picture)
    _show(card, folder, as_json)


def parse_layers(text: str) -> list[int]:
    """``4,8`` as numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"layers must be numbers with commas between, such as 4,8, not {text!r}") from error


def _on_progress(show: Show) -> OnProgress:
    """What is done, and the loss beside it."""

    def on_progress(what: str, done: int, total: int, loss: float) -> None:
        show(done, total, what if math.isnan(loss) else f"{what} (loss {loss:.3f})")

    return on_progress


def _show(card: ExitCard, out: Path, as_json: bool) -> None:
    """The card: as JSON, or as tables."""
    if as_json:
        import msgspec

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(card), indent=2).decode() + "\n")
        return
    console = Console()
    console.print(f"exits of {card.model} (digest {card.model_digest}) after {card.steps} steps, in {out}")
    for far in card.distance:
        console.print(f"after layer {far.layer}: {far.before:.3f} nats from the whole model, now {far.after:.3f}")
    table = Table("layer", "T", "agreement", "cal. error", ">= 0.5", ">= 0.7", ">= 0.9")
    table.caption = "tokens that agree with the whole model's; share sent / share right at a least confidence"
    for entry in card.report:
        at = {round(point.threshold, 2): point for point in entry.operating}
        points = [at[threshold] for threshold in (0.5, 0.7, 0.9)]
        table.add_row(
            str(entry.layer),
            f"{entry.temperature:g}",
            f"{entry.agreement:.3f}",
            f"{entry.calibration_error:.3f}",
            *(f"{p.coverage:.2f} / " + ("-" if p.precision is None else f"{p.precision:.2f}") for p in points),
        )
    console.print(table)
    if card.calibration_error > MAX_CALIBRATION_ERROR:
        console.print(
            f"warning: calibration error {card.calibration_error:.3f} is above {MAX_CALIBRATION_ERROR}; "
            "more held-out text makes the confidence more honest",
            style="yellow",
        )
