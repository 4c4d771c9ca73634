"""A study of ``foredraft tune`` on the page: every trial, the Pareto front, and what it scores on held-out seeds."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from foredraft.errors import ConfigError
from foredraft.observe.report import charts
from foredraft.observe.report.charts import Say, colour, plain, seconds_as
from foredraft.observe.report.sections import panel
from foredraft.observe.report.subjects import Source, Study, Trial, number
from foredraft.profiles.strict import convert

PRICES: Final = ("cost", "energy")
LATENCY: Final = "p50-tpot"
_SECONDS: Final = "s"

_Metrics = dict[str, float]


class _Scored(Struct, frozen=True):
    policy: str
    metrics: _Metrics
    held_out: _Metrics | None = None


class _Candidate(Struct, frozen=True):
    number: int
    policy: str
    metrics: _Metrics = {}
    failure: str = ""


class _Tuned(Struct, frozen=True):
    """What ``tune --json`` prints, as far as the page shows it."""

    scenario: str
    objectives: Annotated[tuple[str, ...], Meta(min_length=1)]
    front: Annotated[tuple[_Scored, ...], Meta(min_length=1)]
    candidates: Annotated[tuple[_Candidate, ...], Meta(min_length=1)]
    defaults: tuple[_Scored, ...] = ()
    limits: _Metrics = {}
    units: dict[str, str] = {}
    seeds: tuple[int, ...] = ()
    held_out_seeds: tuple[int, ...] = ()
    title: str = ""
    lost: int = 0


# Reading


def source_of_study(path: Path, said: Sequence[Mapping[str, Any]]) -> Source:
    """What ``tune --json`` printed. Raises ConfigError naming file, policy and metric."""
    whole = convert(dict(said[0]), _Tuned, path, ConfigError)
    names = list(dict.fromkeys((*whole.objectives, *whole.limits)))
    run = [one for one in whole.candidates if not one.failure]
    trials = [Trial(one.number, one.policy, _checked(path, one.policy, one.metrics, names)) for one in run]
    study = Study(
        Path(whole.scenario).name,
        path.name,
        whole.objectives,
        whole.limits,
        whole.units,
        trials,
        [_trial(path, one, names, place) for place, one in enumerate(whole.front, 1)],
        [_trial(path, one, names, 0) for one in whole.defaults],
    )
    about = [whole.title] if whole.title else []
    about.append(f"minimised: {', '.join(_with_unit(study, name) for name in whole.objectives)}")
    about += [f"limit: {_with_unit(study, name)} at most {plain(most)}" for name, most in whole.limits.items()]
    about.append(f"{len(whole.candidates)} trials on seeds {_numbers(whole.seeds)}")
    about.append(f"held out: seeds {_numbers(whole.held_out_seeds)}")
    return Source(path.name, "tuning, simulated", about, _warnings(whole), studies=[study])


def _trial(path: Path, one: _Scored, names: Sequence[str], place: int) -> Trial:
    metrics = _checked(path, one.policy, one.metrics, names)
    held_out = None if one.held_out is None else _checked(path, f"{one.policy}, held out", one.held_out, names)
    return Trial(place, one.policy, metrics, held_out)


def _checked(path: Path, policy: str, metrics: _Metrics, names: Sequence[str]) -> _Metrics:
    """Finite numbers all, what was asked for among them."""
    return {name: number(metrics.get(name), f"{path}: {policy}: {name}") for name in dict.fromkeys((*names, *metrics))}


def _warnings(whole: _Tuned) -> list[str]:
    failed = [one for one in whole.candidates if one.failure]
    said = []
    if failed:
        said.append(
            f"{len(failed)} trials could not be run to their end, such as {failed[0].policy}: {failed[0].failure}"
        )
    if whole.lost:
        said.append(f"{whole.lost} trials ended with their process and were put in line again")
    return said


def _numbers(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds)) or "unknown"


# Drawing


def study_section(study: Study) -> list[str]:
    """The heading, the charts and the table."""
    panels = [_cloud(study, x, y) for x, y in _axes(study)]
    panels += [_front(study, x, y) for x, y in _axes(study) if len(study.objectives) > 1]
    panels += [_course(study)] if len(study.objectives) == 1 else []
    keys = "".join(
        f'<span><b class="{colour(at)}">●</b> {escape(name)}</span>' for at, name in enumerate(_policies(study))
    )
    return [
        f"<h2>Tuning of {escape(study.name)}</h2>",
        '<p class="soft">Further left and further down is better. Numbers are the places on the Pareto front: what no '
        "other trial betters in every objective. Rings in red miss a limit.</p>",
        f'<p class="keys">{keys}</p>',
        f'<div class="grid">{"".join(panels)}</div>',
        *_table(study),
    ]


def _axes(study: Study) -> list[tuple[str, str]]:
    """What is drawn against what: the objectives; where there is but one, latency and what is known of a price."""
    first, *others = study.objectives
    if not others:
        known = set.intersection(*(set(one.metrics) for one in (*study.trials, *study.front)))
        wanted = (LATENCY, *PRICES) if first in PRICES else PRICES
        others = [name for name in wanted if name in known and name != first][:1]
    pairs = [(first, other) for other in others]
    return [(y, x) if x in PRICES and y not in PRICES else (x, y) for x, y in pairs]


def _cloud(study: Study, x: str, y: str) -> str:
    """Every trial, those of the front with their places, and a line through these."""
    (say_x, label_x), (say_y, label_y) = _scale(study, x), _scale(study, y)
    at = {name: index for index, name in enumerate(_policies(study))}
    best = {one.policy for one in study.front}
    points = []
    for one in study.trials:
        if one.policy not in best:
            kind = f"{colour(at[one.name])} thin" if study.holds(one.metrics) else "over"
            points.append((kind, "", _title(study, one, one.metrics), one.metrics[x], one.metrics[y]))
    for one in study.front:
        title = _title(study, one, one.metrics)
        mark = str(one.number) if len(study.objectives) == 1 else ""  # else they are in the picture of the front
        points.append((colour(at[one.name]), mark, title, one.metrics[x], one.metrics[y]))
    through = sorted((one.metrics[x], one.metrics[y]) for one in study.front)
    paths = [("way", through)] if len(study.objectives) == 2 and len(through) > 1 else []
    chart = charts.scatter(points, say_x, say_y, (label_x, label_y), paths=paths, near=True)
    return panel(f"{_against(x, y)}: every trial", chart, "The front is in full colours. Axes need not begin at 0.")


def _front(study: Study, x: str, y: str) -> str:
    """The front alone: each place on the seeds of the search, and where held-out seeds put it."""
    (say_x, label_x), (say_y, label_y) = _scale(study, x), _scale(study, y)
    at = {name: index for index, name in enumerate(_policies(study))}
    points, paths = [], []
    for one in study.front:
        kind, place = colour(at[one.name]), (one.metrics[x], one.metrics[y])
        points.append((kind, str(one.number), _title(study, one, one.metrics), *place))
        if one.held_out is not None:
            there = (one.held_out[x], one.held_out[y])
            points.append((f"{kind} ring", "", f"held out: {_title(study, one, one.held_out)}", *there))
            paths.append(("way", [place, there]))
    chart = charts.scatter(points, say_x, say_y, (label_x, label_y), paths=paths, near=True)
    caption = "Dots: on the seeds of the search. Rings: the same on held-out seeds; the best of many is a little lucky."
    return panel(f"{_against(x, y)}: the front, and held out", chart, caption)


def _course(study: Study) -> str:
    """One objective, trial by trial."""
    (name,) = study.objectives
    say, label = _scale(study, name)
    at = {policy: index for index, policy in enumerate(_policies(study))}
    best = next((one.number for one in study.trials if one.policy == study.front[0].policy), None)
    points = []
    for one in study.trials:
        kind = colour(at[one.name]) if study.holds(one.metrics) else "over"
        mark = "1" if one.number == best else ""
        points.append((kind, mark, _title(study, one, one.metrics), float(one.number), one.metrics[name]))
    chart = charts.scatter(points, plain, say, ("trial", label), near=True)
    return panel(f"{name}, trial by trial", chart)


def _table(study: Study) -> list[str]:
    """The front and the policies as they come, on the seeds of the search and on others."""
    names = list(dict.fromkeys((*study.objectives, *study.limits)))
    heads = "".join(f"<th>{escape(name)}</th><th>held out</th>" for name in names)
    at = {name: index for index, name in enumerate(_policies(study))}
    rows = []
    for one in (*study.front, *study.defaults):
        place, said = str(one.number or ""), one.name if one.number else f"{one.name} as it comes"
        who = f'<span class="who"><b class="{colour(at[one.name])}">{place}</b><span>{escape(said)}</span></span>'
        cells = "".join(_cell(study, name, scores) for name in names for scores in (one.metrics, one.held_out))
        rows.append(f"<tr><td>{who}</td>{cells}</tr>")
    return [
        '<p class="soft">The policies were chosen by the seeds of the search: trust the held-out columns.</p>',
        f'<div class="scroll"><table><thead><tr><th>policy</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>",
        f"<ol>{''.join(f'<li>{escape(one.policy)}</li>' for one in study.front)}</ol>",
    ]


def _cell(study: Study, name: str, scores: Mapping[str, float] | None) -> str:
    if scores is None:
        return '<td class="bad">failed</td>'
    value, over = scores[name], scores[name] > study.limits.get(name, scores[name])
    mark, word = (' class="bad"', " (over)") if over else ("", "")
    return f'<td{mark} data-value="{value!r}">{_said(study, name, value)}{word}</td>'


def _policies(study: Study) -> list[str]:
    """The policies that were tried, each of which has a colour."""
    return list(dict.fromkeys(one.name for one in (*study.defaults, *study.front, *study.trials)))


def _scale(study: Study, name: str) -> tuple[Say, str]:
    """How the numbers of a metric are said on an axis, and what the axis is called."""
    if study.units.get(name) != _SECONDS:
        return _four, _with_unit(study, name)
    every = [one.metrics[name] for one in (*study.trials, *study.front)]
    _, unit = seconds_as(max(every) or 1.0)
    scale = {"s": 1.0, "ms": 1e3, "µs": 1e6}[unit]
    return lambda value: _four(value * scale), f"{name} ({unit})"


def _four(value: float) -> str:
    """In four digits: an axis that does not begin at 0 may be a narrow one."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _title(study: Study, one: Trial, scores: Mapping[str, float]) -> str:
    names = dict.fromkeys((*study.objectives, *study.limits))
    return f"{one.policy}: {', '.join(f'{name} {_said(study, name, scores[name])}' for name in names)}"


def _said(study: Study, name: str, value: float) -> str:
    return charts.seconds(value) if study.units.get(name) == _SECONDS else plain(value)


def _with_unit(study: Study, name: str) -> str:
    unit = study.units.get(name)
    return f"{name} ({unit})" if unit else name


def _against(x: str, y: str) -> str:
    return f"{y.capitalize() if y in PRICES else y} against {x}"
