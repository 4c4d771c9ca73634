"""Charts as inline SVG, drawn for a column of 360 units; colours are the style sheet's, for light and dark.

A subject is a letter and a colour everywhere on the page. Marks have titles, which browsers show as tooltips.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 360
COLOURS: Final = 8
_LEFT, _RIGHT, _TOP, _FOOT = 44.0, 12.0, 10.0, 40.0
_ROW: Final = 26.0

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


def axis(values: Sequence[float], *, zero: bool = True, most: float = math.inf, count: int = 4) -> Axis:
    """An axis that holds all values, from 0 if wanted; ``most``: where it may end at the latest."""
    low, high = (0.0 if zero else min(values, default=0.0)), max(values, default=1.0)
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(index * step for index in range(first, last + 1))
    if ticks[-1] > most:
        ticks = tuple(tick for tick in ticks if tick <= most * (1 + 1e-9))
    return Axis(ticks[0], max(ticks[-1], min(high, most)), ticks)


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
    scale, height = axis(every, count=5), _TOP + _ROW * len(rows) + _FOOT
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
    return _svg(height, parts, "percentiles per policy")


def stacks(rows: Sequence[tuple[int, str, Sequence[tuple[str, float]]]], say: Say, unit: str) -> str:
    """Per subject a bar of parts; each part's class is its colour."""
    totals = [sum(value for _, value in parts) for _, _, parts in rows]
    scale, height = axis(totals), _TOP + _ROW * len(rows) + _FOOT
    drawn = [*_grid_x(scale, height, say, unit)]
    for row, (index, name, parts) in enumerate(rows):
        y, at = _TOP + _ROW * row + 4, 0.0
        drawn.append(_name(index, y + 9))
        for part, value in parts:
            if value > 0:
                left, right = _x(scale, at), _x(scale, at + value)
                said = escape(f"{name}: {part} {say(value)} {unit}")
                place = f'x="{_n(left)}" y="{_n(y)}" width="{_n(max(0.5, right - left))}" height="18"'
                drawn.append(f'<rect class="p-{part.replace(" ", "-")}" {place}><title>{said}</title></rect>')
            at += value
    return _svg(height, drawn, "parts per policy")


def lines(
    series: Sequence[tuple[int, str, Sequence[tuple[float, float]]]],
    say_x: Say,
    say_y: Say,
    labels: tuple[str, str],
    *,
    dots: bool = True,
    most_y: float = math.inf,
    zero_x: bool = True,
) -> str:
    """Per subject a line through its points; its letter stands at its end."""
    points = [point for _, _, through in series for point in through]
    across = axis([x for x, _ in points], zero=zero_x)
    up, height = axis([y for _, y in points], most=most_y), 230.0
    drawn = [*_grid_x(across, height, say_x, labels[0]), *_grid_y(up, height, say_y, labels[1])]
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
        end_x, end_y = places[-1]
        inner += f'<text x="{_n(min(end_x + 4, WIDTH - 10))}" y="{_n(end_y - 5)}">{letter(index)}</text>'
        drawn.append(f'<g class="{colour(index)}"><title>{escape(name)}</title>{inner}</g>')
    return _svg(height, drawn, f"{labels[1]} by {labels[0]}")


def scatter(
    points: Sequence[tuple[str, str, str, float, float]], say_x: Say, say_y: Say, labels: tuple[str, str]
) -> str:
    """Dots, each (class, letter or nothing, title, x, y)."""
    across, up = axis([x for *_, x, _ in points]), axis([y for *_, y in points])
    height = 250.0
    drawn = [*_grid_x(across, height, say_x, labels[0]), *_grid_y(up, height, say_y, labels[1])]
    for kind, mark, title, x, y in points:
        px, py = _x(across, x), _y(up, y, height)
        text = f'<text x="{_n(px + 7)}" y="{_n(py + 4)}">{escape(mark)}</text>' if mark else ""
        drawn.append(
            f'<g class="{kind}"><title>{escape(title)}</title>'
            f'<circle class="dot" cx="{_n(px)}" cy="{_n(py)}" r="{4.5 if mark else 2.5}"/>{text}</g>'
        )
    return _svg(height, drawn, f"{labels[1]} against {labels[0]}")


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


def _x(scale: Axis, value: float) -> float:
    return scale.at(value, _LEFT, WIDTH - _RIGHT)


def _y(scale: Axis, value: float, height: float) -> float:
    return scale.at(value, height - _FOOT, _TOP)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
