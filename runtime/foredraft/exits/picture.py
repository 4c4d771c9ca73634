"""A picture of how good exits are: what share they speak for, and how often they are right. Needs matplotlib."""

from pathlib import Path
from typing import Final

from foredraft.errors import ConfigError, extras_named
from foredraft.exits.card import ExitCard

NAMED: Final = (0.5, 0.7, 0.9)
"""Thresholds that are written beside their points."""


def draw(card: ExitCard, file: Path) -> None:
    """Draw a panel per temperature, a line per exit, to a PNG or SVG file.

    Raises MissingExtraError without matplotlib, ConfigError when the file cannot be written.
    """
    with extras_named():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    temperatures = sorted({entry.temperature for entry in card.report})
    columns = min(len(temperatures), 3)
    rows = -(-len(temperatures) // columns)
    figure = Figure(figsize=(4.2 * columns, 0.5 + 3.4 * rows), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(temperatures) :]:
        axes.remove()
    for axes, temperature in zip(panels.flat, temperatures, strict=False):
        for entry in (one for one in card.report if one.temperature == temperature):
            points = [(at.coverage, at.precision, at.threshold) for at in entry.operating if at.precision is not None]
            shares, right = [share for share, _, _ in points], [right for _, right, _ in points]
            (line,) = axes.plot(shares, right, marker="o", markersize=3, label=f"after layer {entry.layer}")
            for share, precision, threshold in points:
                if round(threshold, 2) in NAMED:
                    axes.plot(share, precision, "o", color=line.get_color(), markersize=7)
                    axes.annotate(f"{threshold:g}", (share, precision), (6, 6), textcoords="offset points", fontsize=8)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.06))
        axes.set_title(f"temperature {temperature:g}", fontsize=10)
        axes.grid(color="#eeeeee")
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("share of tokens that the exit speaks for", fontsize=10)
    figure.supylabel("share of those that is right", fontsize=10)
    panels[0, 0].legend(frameon=False, fontsize=8.5, loc="lower left")
    figure.suptitle(f"Exits of {card.model}, by the least confidence at which they speak", fontsize=11)
    try:
        figure.savefig(file, dpi=160)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write the picture to {file}: {error}") from error
