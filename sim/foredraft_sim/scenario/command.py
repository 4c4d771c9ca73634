"""``foredraft simulate``: what policies do on devices and links that one does not have."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from foredraft.progress import progress
from foredraft_sim.workers.option import Scheduler, StorageFolder

if TYPE_CHECKING:
    from rich.table import Table

    from foredraft_sim.scenario.finished import Replication
    from foredraft_sim.scenario.scenario import Scenario

_MS, _PERCENT = 1e3, 100.0


def simulate(
    scenario: Annotated[Path, typer.Argument(help="A scenario: a TOML file.", show_default=False)],
    policy: Annotated[
        list[str] | None, typer.Option(help="Simulate this policy in the place of the scenario's; may be repeated.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Use this seed in the place of the scenario's; may be repeated.", min=0)
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes that simulate; by default one per core, if it pays.", min=1)
    ] = None,
    scheduler: Scheduler = "",
    storage: StorageFolder = None,
    events: Annotated[Path | None, typer.Option(help="Write what happened, one JSON object per line.")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Write a Chrome trace of the first seed, for ui.perfetto.dev.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Record the first policy with the first seed, for foredraft replay; see docs/recording.md."),
    ] = None,
    private: Annotated[bool, typer.Option(help="Record no token ids, only ranks and lengths.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Simulate a scenario: the deployed sessions, in simulated time, on emulated devices and links."""
    from foredraft.errors import ConfigError
    from foredraft.files import check_folders, written_together
    from foredraft.policies.policy_file import spec_of
    from foredraft_sim.scenario.replications import replicate_all, storage_for, workers_for
    from foredraft_sim.scenario.results import summarise
    from foredraft_sim.scenario.scenario import read_scenario

    wanted = read_scenario(scenario)
    policies = [spec_of(one) for one in policy or ()] or list(wanted.file.policies)
    seeds = seed or list(wanted.seeds)
    _refuse_repeats(scenario, policies, seeds)
    check_folders([path for path in (events, trace, record) if path is not None])
    if private and record is None:
        raise ConfigError("--private is about what is recorded: give --record FILE, too")
    log = any(path is not None for path in (events, trace, record))
    if log and wanted.rejects:
        raise ConfigError("texts by rejection sampling are not recorded: leave --events, --trace and --record out")
    total = len(policies) * len(seeds)
    kept = storage_for(wanted, policies, storage)
    with (
        workers_for(wanted, total, processes, scheduler, kept) as workers,
        progress("simulating", count=True) as show_progress,
    ):

        def on_done(count: int) -> None:
            show_progress(count, total, "")

        done = replicate_all(wanted, policies, seeds, log=log, workers=workers, on_done=on_done)
    written_together(_views(wanted, done, events, trace, record, private=private))
    summary = summarise(wanted, done)
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(summary).decode())
    else:
        show(summary)


def _views(
    scenario: "Scenario",
    done: "Sequence[Replication]",
    events: Path | None,
    trace: Path | None,
    record: Path | None,
    *,
    private: bool,
) -> dict[Path, bytes]:
    """The files that were asked for: all events, the first seed's trace, the first replication's record."""
    from foredraft.observe.trace import chrome_trace
    from foredraft_sim.scenario.simulated_record import complete

    files: dict[Path, bytes] = {}
    first = done[0]
    if events is not None:
        files[events] = b"".join(one.log for one in done)
    if trace is not None:
        files[trace] = chrome_trace([one.record for one in done if one.seed == first.seed])
    if record is not None:
        files[record] = complete(scenario, first.record, first.recorded, private=private)
    return files


def _refuse_repeats(scenario: Path, policies: list[str], seeds: list[int]) -> None:
    from foredraft_sim.errors import ScenarioError

    for name, values in (("policies", policies), ("seeds", seeds)):
        for value in values:
            if list(values).count(value) > 1:
                raise ScenarioError(f"{scenario}: {name}: {value!r} is there twice; once is enough")


_ROWS: Final = (
    ("TTFT, ms", "ttft_s", _MS, ".1f"),
    ("TPOT, ms", "tpot_s", _MS, ".2f"),
    ("end to end, s", "e2e_s", 1.0, ".3f"),
    ("wait for device, s", "wait_s", 1.0, ".3f"),
    ("missed deadlines, %", "missed", _PERCENT, ".1f"),
    ("speed against first", "speed_against_first", 1.0, ".3f"),
    ("tokens per pass", "tokens_per_pass", 1.0, ".3f"),
    ("tokens/s in all", "tokens_per_s", 1.0, ".2f"),
    ("target passes", "passes", 1.0, ",.0f"),
    ("bytes up", "bytes_up", 1.0, ",.0f"),
    ("bytes down", "bytes_down", 1.0, ",.0f"),
    ("cloud busy, s", "cloud_s", 1.0, ",.2f"),
    ("cloud utilisation, %", "utilisation", _PERCENT, ".1f"),
    ("cost, USD", "cost_usd", 1.0, ".4g"),
    ("cost if shared, USD", "cost_busy_usd", 1.0, ".4g"),
    ("edge energy, J", "edge_energy_j", 1.0, ",.0f"),
    ("edge J per token", "edge_j_per_token", 1.0, ".3f"),
)
_WHERE_THERE: Final = ("wait_s", "missed")
"""Rows that are shown where any policy has something in them."""


def show(summary: dict[str, Any]) -> None:
    """The figures for people."""
    from rich.console import Console

    from foredraft_sim.scenario.input_lines import input_lines

    console = Console(soft_wrap=True)
    columns = len(summary["policies"])
    console.width = max(console.width, 26 + 21 * columns)
    console.print(table_of(summary))
    if summary["same_texts"] is False:
        console.print("The policies' texts DIFFER, which must never happen.", style="red")
    for line in input_lines(summary["inputs"]):
        console.print(line, highlight=False, markup=False)
    for note in summary["notes"]:
        console.print(note, highlight=False, markup=False, style="dim")
    warned = Console(stderr=True, soft_wrap=True)
    for warning in summary["warnings"]:
        warned.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)


def table_of(summary: dict[str, Any]) -> "Table":
    """One column per policy: the mean over the seeds, and half of its 95% confidence interval."""
    from rich.table import Table

    seeds, requests = summary["seeds"], summary["requests_per_seed"]
    caption = (
        "TTFT: time to first token, TPOT: per output token after it. "
        f"Mean over {len(seeds)} seed(s) ± half of its 95% confidence interval; {requests} request(s) per seed"
    )
    table = Table(title=summary["title"] or summary["scenario"], caption=caption)
    table.add_column("", no_wrap=True)
    for said in summary["policies"]:
        table.add_column(said["policy"], justify="right", no_wrap=True)
    for title, name, scale, form in _ROWS:
        if name not in _WHERE_THERE or any(said[name] not in (0.0, None) for said in summary["policies"]):
            table.add_row(title, *(_cell(said, name, scale, form) for said in summary["policies"]))
    for name, title, scale in (
        ("ttft_s", "TTFT {}, ms", _MS),
        ("tpot_s", "TPOT {}, ms", _MS),
        ("e2e_s", "e2e {}, s", 1.0),
    ):
        for rank in summary["policies"][0]["percentiles"][name]:
            cells = (f"{said['percentiles'][name][rank] * scale:,.2f}" for said in summary["policies"])
            table.add_row(title.format(rank), *cells)
    for key in summary["policies"][0]["by_key"]:
        for name, title in (("ttft_s", "TTFT p99 of {}, ms"), ("tpot_s", "TPOT p99 of {}, ms")):
            found = (said["by_key"][key].get(name) for said in summary["policies"])
            table.add_row(title.format(key), *("none" if one is None else f"{one['p99'] * _MS:,.2f}" for one in found))
    return table


def _cell(said: dict[str, Any], name: str, scale: float, form: str) -> str:
    if said[name] is None:
        return "unknown"
    text = format(said[name] * scale, form)
    bounds = said["intervals"][name]
    if bounds is None or bounds[1] - bounds[0] <= 1e-9 * abs(bounds[0]):
        return text
    half = (bounds[1] - bounds[0]) / 2 * scale
    return f"{text} ±{format(half, '.2g' if form.endswith('g') else form)}"
