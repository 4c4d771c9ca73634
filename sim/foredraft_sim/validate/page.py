"""The page of a validation: one HTML file that needs nothing else, and tables for a terminal."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from foredraft.api.loading import DEMO
from foredraft.profiles import DeviceProfile
from foredraft_sim.validate.crowd import MOST_OFF, Found, speed, spread, ttft_p90_s
from foredraft_sim.validate.plan import Plan
from foredraft_sim.validate.repeats import SETTLED
from foredraft_sim.validate.run import Validation
from foredraft_sim.validate.stats import Errors
from foredraft_sim.validate.verdict import JUDGED, METRICS, MOST_MEDIAN, MOST_P99

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; margin: 0 auto; max-width: 64rem; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; } .met { color: #2a7f62; } .missed { color: #b3452c; }
figure { margin: 1rem 0; } figcaption { font-size: .9rem; color: #555; }
@media (prefers-color-scheme: dark) { body { background: #fff; } }
"""
Row = Sequence[str]


def error_rows(found: Validation) -> list[Row]:
    """By metric over all sessions: mean, p50, p90 and p99 error, bias, KS distance."""
    rows: list[Row] = [("metric", "sessions", "mean", "p50", "p90", "p99", "bias", "KS (mean over cells)")]
    for metric, name in METRICS.items():
        errors = found.verdict.errors[metric]
        shares = (errors.mean, errors.p50, errors.p90, errors.p99)
        rows.append(
            (
                name,
                str(errors.count),
                *(f"{share:.1%}" for share in shares),
                f"{errors.bias:+.1%}",
                f"{found.verdict.ks[metric]:.2f}",
            )
        )
    return rows


def cell_rows(found: Validation) -> list[Row]:
    """By link and policy: real and simulated means, and the errors."""
    rows: list[Row] = [
        ("link, policy", "metric", "real mean, ms", "simulated, ms", "p50 error", "p99 error", "bias", "KS")
    ]
    for cell in found.verdict.cells:
        rows.append(
            (
                f"{cell.way}, {cell.policy}",
                METRICS[cell.metric],
                f"{cell.real_mean * 1e3:.2f}",
                f"{cell.simulated_mean * 1e3:.2f}",
                f"{cell.errors.p50:.1%}",
                f"{cell.errors.p99:.1%}",
                f"{cell.errors.bias:+.1%}",
                f"{cell.ks:.2f}",
            )
        )
    return rows


def ranking_rows(found: Validation) -> list[Row]:
    """By link: both rankings, fastest first, and the regret."""
    rows: list[Row] = [("link", "really, fastest first", "simulated", "pairs swapped", "regret")]
    for way, ranking in found.verdict.rankings.items():
        rows.append(
            (
                way,
                " < ".join(ranking.real),
                " < ".join(ranking.simulated),
                f"{len(ranking.swapped)} of {ranking.pairs}",
                f"{ranking.regret:.1%}",
            )
        )
    return rows


def _names(plan: Plan) -> str:
    """What ran, as it was asked for, without the folders."""
    return f"target {Path(plan.model).name} with draft {Path(plan.draft_model).name}"


def crowd_rows(found: Found) -> list[Row]:
    """By number of edges at once: tokens per second and p90 of the first token, really and simulated."""
    rows: list[Row] = [
        ("edges", "real tokens/s", "simulated", "off", "real p90 of first token, ms", "simulated, ms", "off")
    ]
    for one in found.compared:
        rows.append(
            (
                str(one.edges),
                f"{speed(one.real):.1f}",
                f"{speed(one.simulated):.1f}",
                f"{one.speed_off:+.1%}",
                f"{ttft_p90_s(one.real) * 1e3:.0f}",
                f"{ttft_p90_s(one.simulated) * 1e3:.0f}",
                f"{one.ttft_off:+.1%}",
            )
        )
    return rows


def crowd_lines(found: Found) -> list[str]:
    """What is judged of edges at once, and each run."""
    crowd = found.crowd
    lines = [f"MISSED: {one}" for one in found.missed()] or [
        f"Edges at once: tokens per second and p90 of the first token are within {MOST_OFF:.0%}."
    ]
    return [
        *lines,
        f"{crowd.model}, {crowd.threads} threads, policy cloud; of {crowd.runs} runs, as many really and simulated, "
        "the fastest one's tokens per second count, and the median one's p90 of the first token.",
        *(
            f"{one.edges} edges, tokens/s and ms to the first token, each run: real {spread(one.real)}; simulated "
            f"{spread(one.simulated)}."
            for one in found.compared
        ),
    ]


def summary_lines(found: Validation) -> list[str]:
    """The conclusion, and under which conditions."""
    missed = found.verdict.missed()
    plan, correction = found.plan, found.verdict.correction
    pair = "the bundled pair" if (plan.model, plan.draft_model) == (DEMO, DEMO) else _names(plan)
    kind = "EMULATION of devices by pacing" if plan.paced else f"{pair}, as fast as it runs here"
    unsteady = found.verdict.unsteady()
    lines = [f"MISSED: {one}" for one in missed] or [
        f"Every target is met: median error of {' and '.join(METRICS[name] for name in JUDGED)} at most "
        f"{MOST_MEDIAN:.0%}, p99 at most {MOST_P99:.0%}{' (replayed, where it says so)' if unsteady else ''}, "
        "rankings kept."
    ]
    lines += [
        f"NOT AN IDLE MACHINE: {METRICS[metric]}: p99 error {found.verdict.errors[metric].p99:.1%} (target "
        f"{MOST_P99:.0%}), where the two fastest runs of a session differ by {differ:.1%} at p99, more than by chance: "
        f"what is judged is the p99 of replayed sessions."
        for metric, differ in unsteady.items()
    ]
    return [
        *lines,
        f"{kind}; {found.cores.said}; {plan.new_tokens} tokens a session.",
        f"Fitted on {len(plan.fit_prompts)} prompts, reported on {len(plan.report_prompts)} others: "
        f"{correction.pass_s * 1e3:+.3f} ms per pass, {correction.step_s * 1e3:+.3f} ms per draft step, "
        f"{correction.message_s * 1e3:+.3f} ms per message, "
        f"{correction.opening_s * 1e3:+.2f} ms per opening, beside the profiles as measured.",
        *_repeated(found),
        f"Single runs, each simulated with the durations of its own calls (replayed), are off by: "
        f"{_spread(found.verdict.replayed)}.",
        f"Machine: {found.load}.",
        "Reality tells two policies apart where one takes longer, prompt by prompt, by more than "
        f"{next(iter(found.verdict.rankings.values())).tie:.0%} at 95% confidence; other pairs are not judged.",
    ]


def _repeated(found: Validation) -> Iterable[str]:
    """How far reality, and the simulation, are from themselves."""
    if found.verdict.repeated:
        plan = found.plan
        real, simulated = _spread(found.verdict.repeated), _spread(found.verdict.chance)
        yield (
            f"Each session ran {plan.least_runs} to {plan.most_runs} times, until its two fastest runs were within "
            f"{SETTLED:.0%} end to end ({found.unsettled} never were), and was simulated as often; the fastest counts. "
            f"The next differs from it by: {real}; simulated by: {simulated}."
        )


def _spread(repeats: Mapping[str, Errors]) -> str:
    return ", ".join(
        f"{METRICS[metric]} {errors.p50:.1%} (median), {errors.p99:.1%} (p99)"
        for metric, errors in repeats.items()
        if metric in JUDGED
    )


def page(found: Validation, pictures: dict[str, bytes]) -> str:
    """The page. It refers to nothing outside of itself."""
    missed = bool(found.verdict.missed())
    verdict = "".join(
        f'<p class="{"missed" if missed and line.startswith("MISSED") else "met" if not place else ""}">'
        f"{html.escape(line)}</p>"
        for place, line in enumerate(summary_lines(found))
    )
    figures = "".join(
        f'<figure><img alt="{html.escape(title)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        f"<figcaption>{html.escape(title)}</figcaption></figure>"
        for title, data in pictures.items()
    )
    parts = [
        "<h1>Simulated against real sessions</h1>",
        verdict,
        "<h2>Errors, all sessions</h2>",
        _table(error_rows(found)),
        "<h2>Rankings by time end to end</h2>",
        _table(ranking_rows(found)),
        figures,
        "<h2>By link and policy</h2>",
        _table(cell_rows(found)),
        *_crowd_parts(found.crowd),
        "<h2>What the simulation knew</h2>",
        "".join(f"<p>{html.escape(line)}</p>" for line in _profile_lines(found)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>foredraft validate</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _crowd_parts(found: Found | None) -> Iterable[str]:
    if found is not None:
        yield "<h2>Edges at once, on one target that batches</h2>"
        yield _table(crowd_rows(found))
        yield "".join(
            f'<p class="{"missed" if line.startswith("MISSED") else "met"}">{html.escape(line)}</p>'
            for line in crowd_lines(found)
        )
        yield f"<p>{html.escape(found.target.title)}. {html.escape(found.target.notes)}</p>"


def _profile_lines(found: Validation) -> Iterable[str]:
    for profile in (found.profiles.target, found.profiles.draft):
        yield f"{profile.kind}: {profile.title}. {profile.notes}{_machine(profile)}"
    for name, link in found.profiles.links.items():
        rate = "no limit" if link.up.rate_bps is None else f"{link.up.rate_bps / 1e6:.3g} Mbit/s up"
        yield (
            f"link {name}: mean round trip {link.round_trip_s * 1e3:.2f} ms, of it jitter "
            f"{(link.up.jitter_s + link.down.jitter_s) * 1e3:.2f} ms ({link.up.jitter_shape}); {rate}"
        )


def _machine(profile: DeviceProfile) -> str:
    machine = profile.machine
    return "" if machine is None else f" {machine.device}; {machine.settings}; {machine.software}; {machine.measured}."


def _table(rows: Sequence[Row]) -> str:
    head, *body = rows
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'


def text_lines(rows: Sequence[Row]) -> list[str]:
    """A table for a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(zipped))
        for row in rows
        for zipped in [list(zip(row, widths, strict=True))]
    ]
