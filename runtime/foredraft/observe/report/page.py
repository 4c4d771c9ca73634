"""The page: HTML with its style sheet and charts in it, and nothing that is fetched from anywhere."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Final

from foredraft.observe.report import charts
from foredraft.observe.report.charts import colour, letter, percent, plain, seconds
from foredraft.observe.report.sections import SECTIONS, Numbered, key_of, panel
from foredraft.observe.report.studies import study_section
from foredraft.observe.report.style import CHART_STYLE, PAGE_STYLE
from foredraft.observe.report.subjects import COST, ENERGY, Bench, Promise, Source, Study, Subject
from foredraft.version import __version__

_MOST_ROWS: Final = 24
_Column = tuple[str, Callable[[Subject], float | None], Callable[[float], str], int]
"""A heading, the figure, how it is said, and whether less (-1) or more (1) is better, or neither (0)."""

COLUMNS: Final[tuple[_Column, ...]] = (
    ("texts", lambda one: one.texts, plain, 0),
    ("first token", lambda one: one.figures.get("ttft_s"), seconds, -1),
    ("per token", lambda one: one.figures.get("tpot_s"), seconds, -1),
    ("end to end", lambda one: one.figures.get("e2e_s"), seconds, -1),
    ("tokens per pass", lambda one: one.tokens_per_pass, plain, 0),
    ("accepted", lambda one: one.acceptance, percent, 0),
    ("hints right", lambda one: one.hint_precision, percent, 0),
    ("target per token", lambda one: one.per_token("target_s"), seconds, -1),
    ("draft per token", lambda one: one.per_token("draft_s"), seconds, 0),
    ("bytes up, per token", lambda one: one.per_token("bytes_up"), plain, 0),
    ("bytes down, per token", lambda one: one.per_token("bytes_down"), plain, 0),
    ("USD per million tokens", lambda one: one.figures.get(COST), plain, -1),
    ("edge J per token", lambda one: one.figures.get(ENERGY), plain, -1),
)


def report_page(sources: Sequence[Source]) -> str:
    """The whole page. What comes from files is escaped; names, figures and charts are all in it."""
    subjects = [subject for source in sources for subject in source.subjects]
    names = _names(subjects)
    title = _title(subjects, [study for source in sources for study in source.studies])
    body = [f"<h1>{escape(title)}</h1>", *_about(sources)]
    if subjects:
        numbered = [(index, names[index], one) for index, one in enumerate(subjects)]
        body += _table(numbered)
        for section in SECTIONS:
            body += section(numbered)
    for source in sources:
        for bench in source.benches:
            body += _bench(bench)
        for study in source.studies:
            body += study_section(study)
    body.append(f'<p class="soft">Written by foredraft report {escape(__version__)}.</p>')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
        f"<style>{CHART_STYLE}{PAGE_STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _title(subjects: Sequence[Subject], studies: Sequence[Study]) -> str:
    names = list(dict.fromkeys([*(one.name for one in subjects), *(f"tuning of {one.name}" for one in studies)]))
    names = names or ["policy benchmark"]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"Foredraft: {', '.join(names[:3])}{more}"


def _names(subjects: Sequence[Subject]) -> list[str]:
    """Policies by name; where one is there twice, with its file."""
    every = [one.name for one in subjects]
    return [f"{one.name} ({one.source})" if every.count(one.name) > 1 else one.name for one in subjects]


def _about(sources: Sequence[Source]) -> list[str]:
    lines = []
    for source in sources:
        said = "".join(f"<li>{escape(text)}</li>" for text in source.about)
        lines.append(
            f'<details class="soft"{" open" if len(sources) < 3 else ""}><summary><b>{escape(source.name)}</b>: '
            f"{escape(source.kind)}</summary><ul>{said}</ul></details>"
        )
        lines += [f'<p class="warn">{escape(source.name)}: {escape(text)}</p>' for text in source.warnings]
    return lines


def _table(subjects: Numbered) -> list[str]:
    columns = [column for column in COLUMNS if any(column[1](one) is not None for _, _, one in subjects)]
    head = "".join(f"<th>{escape(name)}</th>" for name, *_ in columns)
    best: dict[str, float] = {}
    for name, pick, _, better in columns:
        values = [value for _, _, one in subjects if (value := pick(one)) is not None]
        if better and len(values) > 1:
            best[name] = min(values) if better < 0 else max(values)
    rows = []
    for index, name, one in subjects:
        cells = []
        for title, pick, say, _ in columns:
            value = pick(one)
            mark = ' class="best"' if value is not None and value == best.get(title) else ""
            cells.append("<td>-</td>" if value is None else f'<td{mark} data-value="{value!r}">{say(value)}</td>')
        rows.append(f"<tr><td>{key_of(index, name)}</td>{''.join(cells)}</tr>")
    return [
        "<h2>In figures</h2>",
        '<p class="soft">Times are means over texts; the best of a column is bold. Busy seconds of target and draft '
        "may run side by side.</p>",
        f'<div class="scroll"><table><thead><tr><th>policy</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>",
    ]


def _bench(bench: Bench) -> list[str]:
    body = [f"<h2>{escape(bench.name)}</h2>", f'<p class="soft">{escape(bench.source)}: {escape(bench.says)}</p>']
    body.append(f"<ul>{''.join(map(_promise, bench.promises))}</ul>")
    if bench.rows:
        table = _rows(bench.rows)
        if len(bench.rows) > _MOST_ROWS:
            table = f"<details><summary>{len(bench.rows)} rows</summary>{table}</details>"
        body += [*_bench_charts(bench), table]
    return body


def _promise(one: Promise) -> str:
    said = f'{escape(one.name)}: <b data-value="{one.value!r}">{plain(one.value)} {escape(one.unit)}</b>'
    if one.bound is None:
        return f"<li>{said}</li>"
    holds = one.value >= one.bound if one.at_least else one.value <= one.bound
    word = "at least" if one.at_least else "at most"
    verdict = '<span class="good">✓ held</span>' if holds else '<span class="bad">✗ missed</span>'
    return f"<li>{said}, {word} {plain(one.bound)} {escape(one.unit)}: {verdict}</li>"


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = list(dict.fromkeys(name for row in rows for name in row if row[name] is not None))
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in heads)
    lines = "".join(f"<tr>{''.join(_cell(row.get(name)) for name in heads)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td data-value="{value!r}">{plain(value)}</td>'
    return "<td>-</td>" if value is None else f'<td class="word">{escape(str(value))}</td>'


def _bench_charts(bench: Bench) -> list[str]:
    """Cost against latency, where the part compares policies in one place."""
    rows = [row for row in bench.rows if {"policy", "ms_per_token", "target_s", "draft_s"} <= row.keys()]
    if len({row["policy"] for row in rows}) != len(rows) or not rows:
        return []
    points = []
    for index, row in enumerate(rows):
        device_s = row["target_s"] + row["draft_s"]
        title = f"{row['policy']}: {plain(row['ms_per_token'])} ms, {plain(device_s)} device s per token"
        points.append((colour(index), letter(index), title, float(row["ms_per_token"]), device_s))
    chart = charts.scatter(points, plain, plain, ("ms per token", "target and draft s per token"))
    keys = "<br>".join(key_of(index, str(row["policy"])) for index, row in enumerate(rows))
    return [f'<div class="grid">{panel("Cost against latency", chart)}<p>{keys}</p></div>']
