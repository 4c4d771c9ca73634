"""A picture of where the time went: one panel per session, four lanes each. Needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from foredraft.errors import extras_named
from foredraft.files import made_room
from foredraft.observe.timeline import LANES, Kind, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Final[dict[Kind, str]] = {
    "draft": "#3b6ea8",
    "ahead": "#8fb8de",
    "tokens": "#6c757d",
    "prefill": "#c9c2b2",
    "pass": "#e0d8c3",
    "hint": "#e07a1f",
    "commit": "#2a7f62",
}
NAMES: Final[dict[Kind, str]] = {
    "draft": "draft step",
    "ahead": "draft step during verification",
    "tokens": "draft tokens on their way",
    "pass": "target pass",
    "hint": "hint leaves its exit, travels, arrives",
    "commit": "commit, with the tokens that it adds",
}
_INK: Final = "#333333"
_BAR: Final = 0.62


def draw(sessions: Sequence[tuple[str, Timeline]], file: Path, *, title: str, caption: str, width_s: float) -> None:
    """Draw a window of ``width_s`` of each session, named, to a PNG or SVG file.

    Raises MissingExtraError without matplotlib, ConfigError when the file cannot be written.
    """
    with extras_named():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    height = 1.6 + 1.75 * len(sessions)
    foot, caption_foot = 1.0 / height, 0.5 / height  # shares of the height for the legend and the caption below it
    layout = ConstrainedLayoutEngine(rect=(0, foot, 1, 1 - foot), h_pad=0.06, w_pad=0.12)
    figure = Figure(figsize=(11.5, height), facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(sessions), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, session) in zip(panels, sessions, strict=True):
        _panel(axes, name, session, width_s)
    panels[-1].set_xlabel("milliseconds", fontsize=9, color=_INK)
    figure.suptitle(title, fontsize=13, fontweight="bold", color=_INK)
    figure.legend(
        handles=_legend(), loc="lower center", bbox_to_anchor=(0.5, caption_foot), ncols=3, frameon=False, fontsize=8.5
    )
    figure.text(0.5, caption_foot / 2, caption, ha="center", va="center", fontsize=8, color="#555555")
    with made_room("the picture", file):
        figure.savefig(file, dpi=160)


def _panel(axes: "Axes", name: str, session: Timeline, width_s: float) -> None:
    """One session's window, beginning with the arrival of a commit."""
    start_s = session.typical_start_s(width_s)
    end_s = start_s + width_s
    rows = {lane: len(LANES) - 1 - index for index, lane in enumerate(LANES)}
    for span in session.spans:
        if span.end_s < start_s or span.start_s > end_s:
            continue
        left_ms, length_ms = (span.start_s - start_s) * 1e3, (span.end_s - span.start_s) * 1e3
        row = rows[span.lane]
        axes.broken_barh(
            [(left_ms, length_ms)],
            (row - _BAR / 2, _BAR),
            facecolors=COLOURS[span.kind],
            edgecolors="white",
            linewidth=0.7,
        )
        if span.kind == "hint":
            _hint_mark(axes, left_ms, rows["cloud"], "D")
            _hint_mark(axes, left_ms + length_ms, rows["edge"], "v")
    for commit in session.commits:
        at_ms = (commit.at_s - start_s) * 1e3
        if 0 <= at_ms <= width_s * 1e3:
            axes.axvline(at_ms, color=COLOURS["commit"], linewidth=1.0, alpha=0.75, zorder=3)
            axes.annotate(
                f"+{commit.tokens}",
                (at_ms, len(LANES) - 0.42),
                ha="center",
                va="bottom",
                fontsize=8,
                fontweight="bold",
                color=COLOURS["commit"],
                annotation_clip=False,
            )
    tokens = session.tokens_between(start_s, end_s)
    axes.set_title(f"{name}: {tokens} tokens in {width_s * 1e3:.0f} ms", loc="left", fontsize=10.5, pad=14, color=_INK)
    _dress(axes, width_s)


def _hint_mark(axes: "Axes", at_ms: float, row: int, shape: str) -> None:
    axes.plot(at_ms, row, shape, color=COLOURS["hint"], markersize=6, markeredgecolor="white", zorder=4, clip_on=True)


def _dress(axes: "Axes", width_s: float) -> None:
    axes.set_xlim(0, width_s * 1e3)
    axes.set_ylim(-0.55, len(LANES) - 0.45)
    axes.set_yticks(range(len(LANES)), labels=list(reversed(LANES)), fontsize=9, color=_INK)
    axes.tick_params(axis="both", length=0, labelsize=9, labelcolor=_INK)
    for row in range(len(LANES)):
        axes.axhline(row, color="#eeeeee", linewidth=11, zorder=0, solid_capstyle="butt")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#cccccc")


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks = {"hint": "D", "commit": "|"}
    return [
        Line2D([], [], marker=marks[kind], color=COLOURS[kind], linestyle="", markersize=8, label=name)
        if kind in marks
        else Patch(facecolor=COLOURS[kind], label=name)
        for kind, name in NAMES.items()
    ]
