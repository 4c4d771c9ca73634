"""The picture of a study: its front in two objectives, or with one how the search went."""

from collections.abc import Callable, Sequence

from foredraft.observe.report import charts
from foredraft.observe.report.style import CHART_STYLE
from foredraft_sim.tune.metrics import UNITS
from foredraft_sim.tune.outcome import Outcome
from foredraft_sim.tune.search import Candidate

FRONT, FAINT, OVER = "s0", "faint", "over"


def picture_of(outcome: Outcome) -> str:
    """As SVG, light or dark as whoever looks at it."""
    search = outcome.search
    shown = [one for one in outcome.candidates if not one.failure]
    first, second = (*search.objectives, "")[:2]
    (say_y, unit_y), y = _axis(second or first, shown), second or first
    say_x, unit_x = _axis(first, shown) if second else (charts.plain, "")
    label_x = f"{first}, {unit_x}" if second else "candidate"
    best = {one.candidate.number: str(place) for place, one in enumerate(outcome.front, 1)}
    points = []
    for one in sorted(shown, key=lambda one: one.number in best):
        kind = FRONT if one.number in best else FAINT if search.holds(one.metrics) else OVER
        said = ", ".join(f"{name} {one.metrics[name]:.4g}" for name in search.objectives)
        x = one.metrics[first] if second else float(one.number)
        points.append((kind, best.get(one.number, ""), f"{one.policy}: {said}", x, one.metrics[y]))
    chart = charts.scatter(points, say_x, say_y, (label_x, f"{y}, {unit_y}"))
    notes = [f"{place}: {one.candidate.policy}" for place, one in list(enumerate(outcome.front, 1))[:12]]
    if search.limits:
        limits = ", ".join(f"{name} at most {most:g}" for name, most in search.limits.items())
        notes.append(f"Rings are over a limit: {limits}")
    title = search.scenario.file.title or search.scenario.path.name
    return charts.standalone(chart, title, notes, CHART_STYLE)


def _axis(name: str, shown: Sequence[Candidate]) -> tuple[Callable[[float], str], str]:
    """How the numbers of a metric are said, and their unit."""
    if UNITS[name] == "s":
        return charts.seconds_as(max(one.metrics[name] for one in shown) or 1.0)
    return charts.plain, UNITS[name]
