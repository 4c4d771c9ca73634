"""The pictures of a validation's page, as PNG bytes. Needs matplotlib."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from foredraft.errors import extras_named
from foredraft_sim.validate.run import Validation
from foredraft_sim.validate.verdict import JUDGED, METRICS, MOST_MEDIAN, MOST_P99

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS: Final = ("#3b6ea8", "#e07a1f", "#2a7f62", "#9b4f96", "#6c757d", "#b3452c", "#8fb8de", "#c9a227")
_INK: Final = "#333333"


def pictures(found: Validation) -> dict[str, bytes]:
    """By title. Raises MissingExtraError without matplotlib."""
    with extras_named():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    def drawn(width: float, height: float, draw: Any) -> bytes:
        figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure, found)
        into = io.BytesIO()
        figure.savefig(into, format="png", dpi=120)
        return into.getvalue()

    ways = len(found.plan.ways)
    return {
        "Each session: simulated against real time per output token": drawn(3.7 * ways, 4.1, _sessions),
        "Mean time end to end, by policy and link": drawn(3.7 * ways, 3.6, _means),
        "How many sessions have at most this error": drawn(8.0, 3.4, _distribution),
    }


def _sessions(figure: "Figure", found: Validation) -> None:
    panels = figure.subplots(1, len(found.plan.ways), squeeze=False)[0]
    for axes, way in zip(panels, found.plan.ways, strict=True):
        for policy, colour in zip(found.plan.policies, _COLOURS, strict=False):
            theirs, ours = _pairs(found, "tpot_s", way, policy)
            axes.plot(_ms(theirs), _ms(ours), "o", color=colour, markersize=5, alpha=0.8, label=policy)
        least, most = axes.get_xlim()
        axes.plot([least, most], [least, most], color=_INK, linewidth=1)
        for share in (MOST_MEDIAN, -MOST_MEDIAN):
            axes.plot([least, most], [least * (1 + share), most * (1 + share)], ":", color="#999999", linewidth=1)
        axes.set_xlim(least, most)
        axes.set_title(way, fontsize=10, color=_INK)
        axes.set_xlabel("real, ms per token", fontsize=9, color=_INK)
        _dress(axes)
    panels[0].set_ylabel("simulated, ms per token", fontsize=9, color=_INK)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8.5)


def _means(figure: "Figure", found: Validation) -> None:
    panels = figure.subplots(1, len(found.plan.ways), squeeze=False)[0]
    for axes, way in zip(panels, found.plan.ways, strict=True):
        cells = [cell for cell in found.verdict.cells if cell.way == way and cell.metric == "e2e_s"]
        places = range(len(cells))
        for shift, name, values in (
            (-0.2, "real", [cell.real_mean for cell in cells]),
            (0.2, "simulated", [cell.simulated_mean for cell in cells]),
        ):
            colour = _COLOURS[0] if name == "real" else _COLOURS[6]
            axes.bar([place + shift for place in places], values, width=0.38, color=colour, label=name)
        axes.set_xticks(list(places), labels=[cell.policy for cell in cells], rotation=30, ha="right")
        axes.set_title(way, fontsize=10, color=_INK)
        _dress(axes)
    panels[0].set_ylabel("seconds", fontsize=9, color=_INK)
    panels[0].legend(frameon=False, fontsize=8.5)


def _distribution(figure: "Figure", found: Validation) -> None:
    panels = figure.subplots(1, len(JUDGED), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, JUDGED, strict=True):
        theirs, ours = _pairs(found, metric)
        errors = sorted(abs(b / a - 1.0) * 100 for a, b in zip(theirs, ours, strict=True))
        shares = [(place + 1) / len(errors) for place in range(len(errors))]
        axes.step([0.0, *errors], [0.0, *shares], where="post", color=_COLOURS[0])
        for bound, share in ((MOST_MEDIAN, 0.5), (MOST_P99, 0.99)):
            axes.plot(bound * 100, share, "v", color=_COLOURS[1], clip_on=False)
        axes.set_title(METRICS[metric], fontsize=10, color=_INK)
        axes.set_xlabel("absolute error, % (triangles: the targets)", fontsize=9, color=_INK)
        axes.set_ylim(0, 1.02)
        axes.set_xlim(left=0)
        _dress(axes)
    panels[0].set_ylabel("share of sessions", fontsize=9, color=_INK)


def _pairs(found: Validation, metric: str, way: str = "", policy: str = "") -> tuple[list[float], list[float]]:
    """Real and simulated values of the same sessions."""
    twins = {(one.way, one.policy, one.prompt): one for one in found.simulated}
    real = [one for one in found.real if (not way or one.way == way) and (not policy or one.policy == policy)]
    return (
        [getattr(one, metric) for one in real],
        [getattr(twins[one.way, one.policy, one.prompt], metric) for one in real],
    )


def _ms(values: Sequence[float]) -> list[float]:
    return [value * 1e3 for value in values]


def _dress(axes: "Axes") -> None:
    axes.tick_params(length=0, labelsize=8.5, labelcolor=_INK)
    axes.grid(visible=True, color="#eeeeee")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
