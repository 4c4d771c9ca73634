"""The page's comparisons, each a heading with some charts; empty where the files say nothing of it."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from foredraft.observe.aggregate import TIMES
from foredraft.observe.report import charts
from foredraft.observe.report.charts import colour, letter, percent, plain, seconds, seconds_as
from foredraft.observe.report.recorded import PARTS, STRETCH
from foredraft.observe.report.subjects import COST, ENERGY, Subject

Numbered = Sequence[tuple[int, str, Subject]]
"""Subjects with their number, which is their letter and colour, and their name on the page."""

_CURVE: Final = 160
_TITLES: Final = {"ttft_s": "Time to first token", "tpot_s": "Time per output token", "e2e_s": "End to end"}


def key_of(index: int, name: str) -> str:
    """A subject's letter in its colour, and its name."""
    return f'<span class="who"><b class="{colour(index)}">{letter(index)}</b><span>{escape(name)}</span></span>'


def panel(title: str, chart: str, caption: str = "") -> str:
    """A chart with its heading; ``caption`` is HTML."""
    said = f'<p class="soft">{caption}</p>' if caption else ""
    return f'<section class="panel"><h3>{escape(title)}</h3>{chart}{said}</section>'


def _grid(title: str, caption: str, panels: Sequence[str]) -> list[str]:
    said = [f'<p class="soft">{caption}</p>'] if caption else []
    return [f"<h2>{escape(title)}</h2>", *said, f'<div class="grid">{"".join(panels)}</div>'] if panels else []


def _latency(subjects: Numbered) -> list[str]:
    panels = []
    for name in TIMES:
        rows = [(i, said, [one.spread[name][rank] for rank in _ranks(one, name)]) for i, said, one in subjects]
        rows = [row for row in rows if row[2]]
        if rows and max(max(values) for _, _, values in rows) > 0:
            say, unit = seconds_as(max(max(values) for _, _, values in rows))
            panels.append(panel(f"{_TITLES[name]}, {unit}", charts.ranges(rows, say, unit)))
    gaps = [(i, said, one.gaps_s) for i, said, one in subjects if len(one.gaps_s) > 1]
    if gaps:
        most = max(one[int(0.995 * (len(one) - 1))] for _, _, one in gaps)
        say, unit = seconds_as(most)
        series = [(i, said, _shares(one, most)) for i, said, one in gaps]
        chart = charts.lines(series, say, percent, (f"at most, {unit}", "share"), dots=False, most_y=1.0, named_at=0.5)
        panels.append(panel("Between commits", chart, "How many of the waits for more text are at most so long."))
    return _grid(
        "Latency", "The dot is the median over all texts, the ticks are its 90th and 99th percentiles.", panels
    )


def _ranks(one: Subject, name: str) -> list[str]:
    return sorted(one.spread.get(name, {}), key=lambda rank: float(rank.removeprefix("p")))


def _shares(ordered: Sequence[float], most: float) -> list[tuple[float, float]]:
    """The curve of a sorted sample: how much of it is at most so large, in few enough points."""
    every = max(1, len(ordered) // _CURVE)
    points = [(ordered[0], 0.0)]
    points += [(value, (index + 1) / len(ordered)) for index, value in enumerate(ordered) if index % every == 0]
    return [point for point in points if point[0] <= most]


def _time(subjects: Numbered) -> list[str]:
    panels = []
    swept = [(i, said, [(part, one.parts[part]) for part in PARTS]) for i, said, one in subjects if one.parts]
    if swept:
        say, unit = seconds_as(max(sum(value for _, value in parts) for _, _, parts in swept))
        seen = [
            part for part in PARTS if any(value > 0 for _, _, parts in swept for name, value in parts if name == part)
        ]
        caption = (
            f"{_keys(seen)}<br>From the records. A moment is the pass's first, then prefill's, drafting's, "
            "and the link's only where nothing else was at work."
        )
        panels.append(panel(f"Every moment, {unit} per token", charts.stacks(swept, say, unit), caption))
    busy: list[tuple[int, str, list[tuple[str, float]]]] = []
    for index, name, one in subjects:
        found = [(part, one.per_token(f"{key}_s") or 0.0) for part, key in (("pass", "target"), ("draft", "draft"))]
        busy.append((index, name, [*found, ("queue", one.per_token("queue_s") or 0.0)]))
    if any(value for _, _, parts in busy for _, value in parts):
        say, unit = seconds_as(max(sum(value for _, value in parts) for _, _, parts in busy))
        seen = [part for part in ("pass", "draft", "queue") if any(v for _, _, ps in busy for p, v in ps if p == part)]
        caption = f"{_keys(seen)}<br>What the devices were occupied, prefill included. It may run side by side."
        panels.append(panel(f"Busy seconds, {unit} per token", charts.stacks(busy, say, unit), caption))
    return _grid("Where the time went", "", panels)


_PART_NAMES: Final = {
    "prefill": "prefill",
    "pass": "target",
    "pass and draft": "target, and draft beside it",
    "draft": "draft",
    "link": "link",
    "other": "other",
    "queue": "waiting for the target",
}


def _keys(parts: Sequence[str]) -> str:
    keys = (f'<span><i class="key p-{part.replace(" ", "-")}"></i>{_PART_NAMES[part]}</span>' for part in parts)
    return f'<span class="keys">{"".join(keys)}</span>'


def _acceptance(subjects: Numbered) -> list[str]:
    panels = []
    chains = [(i, said, _accepted_at(one.chain)) for i, said, one in subjects if one.chain]
    chains = [row for row in chains if row[2]]
    if chains:
        chart = charts.lines(chains, plain, percent, ("position in the draft", "accepted"), most_y=1.0)
        caption = "Of the passes that verified so many draft tokens, how many accepted so many in a row."
        panels.append(panel("By position in the draft", chart, caption))
    along = [(i, said, [(first, right / asked) for first, asked, right in one.along]) for i, said, one in subjects]
    along = [row for row in along if len(row[2]) > 1]
    if along:
        chart = charts.lines(
            along, plain, percent, (f"token of the text, {STRETCH} at a time", "first guess right"), most_y=1.0
        )
        panels.append(panel("Along the text", chart, "How often the draft's first guess was the token."))
    rows = [(i, name, one.acceptance) for i, name, one in subjects]
    shares = [(i, name, [(charts.OWN, value)]) for i, name, value in rows if value is not None]
    if shares:
        panels.append(
            panel(
                "In all",
                charts.stacks(shares, percent, "accepted", whole=1.0),
                "Of all verified draft tokens.",
            )
        )
    return _grid("Acceptance", "", panels)


def _accepted_at(chain: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
    """Depths up to the first that nothing reached."""
    points: list[tuple[float, float]] = []
    for depth, (offered, accepted) in enumerate(chain, 1):
        points.append((float(depth), accepted / offered))
        if not accepted:
            break
    return points


def _hints(subjects: Numbered) -> list[str]:
    panels = []
    rows = [
        (i, name, [(charts.OWN, one.hint_precision)]) for i, name, one in subjects if one.hint_precision is not None
    ]
    if rows:
        chart = charts.stacks(rows, percent, "right", whole=1.0)
        panels.append(panel("Hints that came true", chart, "Of the hints that were sent, each as a whole."))
    layers = [
        (i, said, [(float(e.layer), e.right / e.said) for e in one.exits]) for i, said, one in subjects if one.exits
    ]
    if layers:
        chart = charts.lines(layers, plain, percent, ("after layer", "right"), most_y=1.0)
        panels.append(
            panel("Exits, token by token", chart, "How often an exit says the token that the target then says.")
        )
        sure = [
            (i, said, [(e.confidence, e.right / e.said) for e in one.exits]) for i, said, one in subjects if one.exits
        ]
        chart = charts.lines(sure, percent, percent, ("mean confidence", "right"), most_y=1.0, even=True)
        panels.append(panel("Confidence and truth", chart, "Calibrated exits lie on the dashed line."))
    return _grid("Hint precision", "", panels)


def _cost(subjects: Numbered) -> list[str]:
    panels = []
    say_x, unit_x = seconds_as(max(one.figures["tpot_s"] for _, _, one in subjects) or 1.0)
    for title, pick, caption in _PRICES:
        points = [
            (
                colour(i),
                letter(i),
                f"{name}: {seconds(one.figures['tpot_s'])}, {plain(value)} {title}",
                one.figures["tpot_s"],
                value,
            )
            for i, name, one in subjects
            if (value := pick(one)) is not None
        ]
        if points:
            chart = charts.scatter(points, say_x, plain, (f"time per token, {unit_x}", title))
            panels.append(panel(title, chart, caption))
    return _grid("Cost against latency", "Further left is faster, further down is cheaper.", panels)


_PRICES: Final[tuple[tuple[str, Callable[[Subject], float | None], str], ...]] = (
    ("USD per million tokens", lambda one: one.figures.get(COST), "The price of the servers' busy seconds."),
    ("edge J per token", lambda one: one.figures.get(ENERGY), "The device's energy, idle watts included."),
    (
        "target s per token",
        lambda one: one.per_token("target_s"),
        "What a token occupies the target.",
    ),
)

SECTIONS: Final = (_latency, _time, _acceptance, _hints, _cost)
"""In the order of the page."""
