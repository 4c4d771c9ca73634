"""Charts as inline SVG, drawn for a column of 360 units; colours are the style sheet's, for light and dark.

A subject is a letter and a colour everywhere on the page. Marks have titles, which browsers show as tooltips.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import Final

WIDTH: Final = 360
COLOURS: Final = 8
OWN: Final = "own"
_LEFT, _RIGHT, _TOP, _FOOT = 48.0, 14.0, 12.0, 40.0
_ROOM = 40.0  # for what stands behind a bar
_ROW: Final = 26.0
_LINE: Final = 54  # letters that go below a chart

Say = Callable[[float], str]


def letter(index: int) -> str:
    """A, B ... Z, AA ..."""
    return (letter(index // 26 - 1) if index >= 26 else "") + chr(ord("A") + index % 26)


def colour(index: int) -> str:
    """The class that gives a subject its colour."""
    return f"s{index % COLOURS}"


@dataclass(frozen=True, slots=True)
class Axis:
    """From ``low`` to ``high``, with some round numbers on the way."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float, start: float, end: float) -> float:
        """Where a value lies between two places."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)


def axis(
    values: Sequence[float], *, most: float = math.inf, room: float = 0.0, count: int = 4, near: bool = False
) -> Axis:
    """An axis that holds all values, from 0, or from near the least of them if ``near``.

    ``most``: where it may end at the latest; ``room``: left free behind.
    """
    high = max(values, default=1.0) or 1.0
    low = min(values) if near and min(values) < high else 0.0
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(index * step for index in range(first, last + 1))
    if ticks[-1] > most:
        ticks = tuple(tick for tick in ticks if tick <= most * (1 + 1e-9))
    end = max(ticks[-1], min(high, most))
    inner = WIDTH - _LEFT - _RIGHT
    return Axis(ticks[0], max(end, high * inner / (inner - room)), ticks)


def seconds(value: float) -> str:
    """A duration for people."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value) >= scale:
            return f"{_three(value / scale)} {unit}"
    return "0" if value == 0 else f"{value * 1e9:.3g} ns"


def seconds_as(most: float) -> tuple[Say, str]:
    """How to say durations of an axis that goes to ``most``: the number alone, and the unit for all of them."""
    scale, unit = next(((s, u) for s, u in ((1.0, "s"), (1e-3, "ms")) if most >= s), (1e-6, "µs"))
    return lambda value: plain(value / scale), unit


def plain(value: float) -> str:
    """A number for people, in three digits."""
    return "0" if value == 0 else _three(value)


def percent(value: float) -> str:
    """A share."""
    return f"{value * 100:.3g}%"


def _three(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def ranges(rows: Sequence[tuple[int, str, Sequence[float]]], say: Say, unit: str) -> str:
    """Per subject a dot at its first number, and a line to the others, each with a tick: p50, p90, p99."""
    every = [value for _, _, values in rows for value in values]
    scale, height = axis(every, room=_ROOM), _TOP + _ROW * len(rows) + _FOOT
    parts = [*_grid_x(scale, height, say, unit)]
    for row, (index, name, values) in enumerate(rows):
        y = _TOP + _ROW * (row + 0.5)
        places = [_x(scale, value) for value in values]
        said = escape(f"{name}: {', '.join(map(say, values))} {unit}")
        parts.append(_name(index, y))
        marks = "".join(f'<path class="line" d="M{_n(x)} {_n(y - 5)}v10"/>' for x in places[1:])
        parts.append(
            f'<g class="{colour(index)}"><title>{said}</title>'
            f'<path class="line" d="M{_n(places[0])} {_n(y)}H{_n(places[-1])}"/>{marks}'
            f'<circle class="dot" cx="{_n(places[0])}" cy="{_n(y)}" r="4.5"/></g>'
        )
        parts.append(_value(max(places) + 8, y + 4, say(values[0])))
    return _svg(height, parts, "percentiles per policy")


def stacks(
    rows: Sequence[tuple[int, str, Sequence[tuple[str, float]]]], say: Say, unit: str, *, whole: float | None = None
) -> str:
    """Per subject a bar of parts, with their sum behind it; a part's class is its colour, OWN is the subject's.

    ``whole``: where the axis ends, whatever the values.
    """
    totals = [sum(value for _, value in parts) for _, _, parts in rows]
    scale = axis([whole], room=_ROOM) if whole else axis(totals, room=_ROOM)
    height = _TOP + _ROW * len(rows) + _FOOT
    drawn = [*_grid_x(scale, height, say, unit)]
    for row, (index, name, parts) in enumerate(rows):
        y, at = _TOP + _ROW * row + 4, 0.0
        drawn.append(_name(index, y + 9))
        for part, value in parts:
            if value > 0:
                left, right = _x(scale, at), _x(scale, at + value)
                said = escape(f"{name}: {part} {say(value)} {unit}")
                kind = f"own {colour(index)}" if part == OWN else f"p-{part.replace(' ', '-')}"
                place = f'x="{_n(left)}" y="{_n(y)}" width="{_n(max(0.5, right - left))}" height="18"'
                drawn.append(f'<rect class="{kind}" {place}><title>{said}</title></rect>')
            at += value
        drawn.append(_value(_x(scale, at) + 5, y + 13, say(at)))
    return _svg(height, drawn, "parts per policy")


def lines(
    series: Sequence[tuple[int, str, Sequence[tuple[float, float]]]],
    say_x: Say,
    say_y: Say,
    labels: tuple[str, str],
    *,
    dots: bool = True,
    most_y: float = math.inf,
    named_at: float = 1.0,
    even: bool = False,
) -> str:
    """Per subject a line through its points; its letter stands at its end, or at that share of its way.

    ``even``: draw where x and y are the same.
    """
    points = [point for _, _, through in series for point in through]
    across = axis([x for x, _ in points])
    letters = _Letters()
    up, height = axis([y for _, y in points], most=most_y), 230.0
    drawn = [*_grid_x(across, height, say_x, labels[0]), *_grid_y(up, height, say_y, labels[1])]
    if even:
        most = min(across.high, up.high)
        to = f"{_n(_x(across, most))} {_n(_y(up, most, height))}"
        drawn.append(f'<path class="grid even" d="M{_n(_x(across, 0))} {_n(_y(up, 0, height))}L{to}"/>')
    for index, name, through in series:
        places = [(_x(across, x), _y(up, y, height)) for x, y in through]
        path = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in places)
        inner = f'<path class="line" d="{path}"/>'
        if dots:
            inner += "".join(
                f'<circle class="dot" cx="{_n(px)}" cy="{_n(py)}" r="3"><title>'
                f"{escape(f'{name}: {say_x(x)}, {say_y(y)}')}</title></circle>"
                for (px, py), (x, y) in zip(places, through, strict=True)
            )
        end_x, end_y = places[round(named_at * (len(places) - 1))]
        inner += letters.put(letter(index), end_x + 4, end_y - 5)
        drawn.append(f'<g class="{colour(index)}"><title>{escape(name)}</title>{inner}</g>')
    return _svg(height, drawn, f"{labels[1]} by {labels[0]}")


def scatter(
    points: Sequence[tuple[str, str, str, float, float]],
    say_x: Say,
    say_y: Say,
    labels: tuple[str, str],
    *,
    paths: Sequence[tuple[str, Sequence[tuple[float, float]]]] = (),
    near: bool = False,
) -> str:
    """Dots, each (class, letter or nothing, title, x, y), over ``paths``, each (class, places); ``near``: see axis."""
    across, up = axis([x for *_, x, _ in points], near=near), axis([y for *_, y in points], near=near)
    height, letters = 250.0, _Letters()
    drawn = [*_grid_x(across, height, say_x, labels[0]), *_grid_y(up, height, say_y, labels[1])]
    for kind, places in paths:
        way = "M" + "L".join(f"{_n(_x(across, x))} {_n(_y(up, y, height))}" for x, y in places)
        drawn.append(f'<g class="{kind}"><path class="line" d="{way}"/></g>')
    for kind, mark, title, x, y in points:
        px, py = _x(across, x), _y(up, y, height)
        text = letters.put(escape(mark), px + 4, py - 7, upward=True) if mark else ""
        drawn.append(
            f'<g class="{kind}"><title>{escape(title)}</title>'
            f'<circle class="dot" cx="{_n(px)}" cy="{_n(py)}" r="{4.5 if mark else 2.5}"/>{text}</g>'
        )
    return _svg(height, drawn, f"{labels[1]} against {labels[0]}")


class _Letters:
    """Puts letters beside what they name, and never one upon another."""

    def __init__(self) -> None:
        self._taken: list[tuple[float, float]] = []

    def put(self, mark: str, x: float, y: float, *, upward: bool = False) -> str:
        """A letter at this place, or as near to it as there is room to the right, or above."""
        x, y = min(x, WIDTH - 10.0), max(y, _TOP - 2)
        wide = 4.0 + 6.5 * len(mark)
        while any(abs(x - left) < wide and abs(y - above) < 10 for left, above in self._taken):
            if upward:
                y -= 10
            else:
                x, y = (x + wide, y) if x < WIDTH - 20 else (x - wide, y + 10)
        self._taken.append((x, y))
        return f'<text x="{_n(x)}" y="{_n(y)}">{mark}</text>'


def standalone(chart: str, title: str, notes: Sequence[str], style: str) -> str:
    """A chart as a file of its own, with a title above it and some lines below."""
    notes = [line for note in notes for line in wrap(note, _LINE, subsequent_indent="    ")]
    head, foot = 26.0, 14.0 * len(notes) + 8
    _, _, inner = chart.partition("<svg")
    height = float(inner.partition(f'viewBox="0 0 {WIDTH} ')[2].partition('"')[0])
    whole = head + height + foot
    lines = [f'<text x="10" y="17" class="name">{escape(title)}</text>']
    lines += [
        f'<text x="10" y="{_n(head + height + 12 + 14 * at)}" class="label">{escape(note)}</text>'
        for at, note in enumerate(notes)
    ]
    placed = f'<svg x="0" y="{_n(head)}" width="{WIDTH}" height="{_n(height)}"{inner}'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" class="chart" style="max-width:none" '
        f'viewBox="0 0 {WIDTH} {_n(whole)}" width="{2 * WIDTH}" height="{_n(2 * whole)}"><style>{style}</style>'
        f'<rect class="paper" width="{WIDTH}" height="{_n(whole)}"/>{"".join(lines)}{placed}</svg>\n'
    )


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    label = escape(title)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {_n(height)}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )


def _grid_x(scale: Axis, height: float, say: Say, label: str) -> list[str]:
    bottom = height - _FOOT
    lines = [f'<path class="grid" d="M{_n(_x(scale, tick))} {_n(_TOP)}V{_n(bottom)}"/>' for tick in scale.ticks]
    texts = [
        f'<text class="tick" x="{_n(_x(scale, tick))}" y="{_n(bottom + 14)}" text-anchor="middle">{say(tick)}</text>'
        for tick in scale.ticks
    ]
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    label = f'<text class="label" x="{_n(middle)}" y="{_n(bottom + 31)}" text-anchor="middle">{escape(label)}</text>'
    return [*lines, *texts, label]


def _grid_y(scale: Axis, height: float, say: Say, label: str) -> list[str]:
    drawn = []
    for tick in scale.ticks:
        y = _y(scale, tick, height)
        drawn.append(f'<path class="grid" d="M{_n(_LEFT)} {_n(y)}H{_n(WIDTH - _RIGHT)}"/>')
        drawn.append(f'<text class="tick" x="{_n(_LEFT - 5)}" y="{_n(y + 4)}" text-anchor="end">{say(tick)}</text>')
    middle = (height - _FOOT + _TOP) / 2
    turned = f'transform="rotate(-90 11 {_n(middle)})"'
    text = f'<text class="label" x="11" y="{_n(middle)}" {turned} text-anchor="middle">{escape(label)}</text>'
    return [*drawn, text]


def _name(index: int, y: float) -> str:
    place = f'x="{_n(_LEFT - 12)}" y="{_n(y + 5)}" text-anchor="end"'
    return f'<text class="name {colour(index)}" {place}>{letter(index)}</text>'


def _value(x: float, y: float, said: str) -> str:
    return f'<text class="tick" x="{_n(x)}" y="{_n(y)}">{escape(said)}</text>'


def _x(scale: Axis, value: float) -> float:
    return scale.at(value, _LEFT, WIDTH - _RIGHT)


def _y(scale: Axis, value: float, height: float) -> float:
    return scale.at(value, height - _FOOT, _TOP)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
