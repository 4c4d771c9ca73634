"""``foredraft replay``: a recorded session again, as it was or under another link, devices or policy."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from foredraft_sim.replay.replay import Changes, Replayed


def replay(
    file: Annotated[Path, typer.Argument(help="A record: what --record wrote.", show_default=False)],
    policy: Annotated[str, typer.Option(help="Another policy than the recorded one.", show_default="as recorded")] = "",
    edge: Annotated[
        str, typer.Option(help="Another device: a draft's hardware profile.", show_default="as recorded")
    ] = "",
    cloud: Annotated[
        str, typer.Option(help="Another server: a target's hardware profile.", show_default="as recorded")
    ] = "",
    cloud_draft: Annotated[
        str,
        typer.Option(
            help="A draft model in the cloud: its hardware profile. Where none was, it guesses as the edge's."
        ),
    ] = "",
    link: Annotated[str, typer.Option(help="Another link: a hardware profile.", show_default="as recorded")] = "",
    events: Annotated[Path | None, typer.Option(help="Write what happened, one JSON object per line.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a Chrome trace, for ui.perfetto.dev.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Replay a record in simulated time: the same tokens, as recorded or under another set-up."""
    from foredraft.errors import ForedraftError
    from foredraft.files import check_folders
    from foredraft.observe.record.reading import read_record
    from foredraft_sim.replay.replay import replay as replayed_of

    check_folders([path for path in (events, trace) if path is not None])
    record = read_record(file)
    done = replayed_of(record, _changes(policy, edge, cloud, cloud_draft, link))
    _write_views(done, events, trace)
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(as_plain(done)).decode())
    else:
        show(done)
    if not done.same_tokens or done.same_events is False:
        what = "the tokens" if not done.same_tokens else "what happened"
        raise ForedraftError(f"{what} differs from the record, which must never happen; please report it with the file")


def _write_views(done: "Replayed", events: Path | None, trace: Path | None) -> None:
    from foredraft.files import written_together
    from foredraft.observe.trace import chrome_trace

    files: dict[Path, bytes] = {}
    if events is not None:
        files[events] = done.replication.log
    if trace is not None:
        files[trace] = chrome_trace([done.replication.record])
    written_together(files)


def _changes(policy: str, edge: str, cloud: str, cloud_draft: str, link: str) -> "Changes":
    from foredraft.policies.policy_file import spec_of
    from foredraft.profiles import load_profile
    from foredraft_sim.replay.replay import Changes

    return Changes(
        policy=spec_of(policy) if policy else None,
        edge=load_profile(edge, "draft") if edge else None,
        cloud=load_profile(cloud, "target") if cloud else None,
        cloud_draft=load_profile(cloud_draft, "draft") if cloud_draft else None,
        link=load_profile(link, "link") if link else None,
    )


def as_plain(done: "Replayed") -> dict[str, Any]:
    """Everything that ``--json`` prints. ``ratio``: replayed over recorded."""
    setup, beside = done.record.setup, done.scenario.cloud_draft
    return {
        "record": str(done.record.path),
        "simulated": setup.simulated,
        "private": setup.private,
        "sessions": len(done.replication.finished),
        "cut": None if done.record.cut is None else str(done.record.cut),
        "notes": list(done.record.notes),
        "policy": {"recorded": setup.policy, "replayed": done.policy},
        "profiles": {
            "edge": done.scenario.draft.name,
            "cloud": done.scenario.target.name,
            "cloud_draft": None if beside is None else beside.name,
            "link": done.scenario.link.name,
        },
        "recorded": done.recorded,
        "replayed": done.replayed,
        "ratio": {name: ratio for name in done.recorded if (ratio := _ratio(done, name)) is not None},
        "same_tokens": done.same_tokens,
        "same_events": done.same_events,
        "warnings": list(done.replication.warnings),
    }


def _ratio(done: "Replayed", name: str) -> float | None:
    """Replayed over recorded, where both are known and it means anything."""
    before = done.recorded.get(name, 0.0)
    return done.replayed[name] / before if before else None


_ROWS: Final = (
    ("time to first token (TTFT), ms", "ttft_s", 1e3, ",.1f"),
    ("time per output token (TPOT), ms", "tpot_s", 1e3, ",.2f"),
    ("end to end, s", "e2e_s", 1.0, ",.3f"),
    ("target passes", "passes", 1.0, ",.1f"),
    ("tokens per pass", "tokens_per_pass", 1.0, ",.3f"),
    ("drafted tokens verified", "drafted", 1.0, ",.1f"),
    ("of them accepted", "accepted", 1.0, ",.1f"),
    ("hints", "hints", 1.0, ",.1f"),
    ("of them right", "hints_right", 1.0, ",.1f"),
    ("bytes up", "bytes_up", 1.0, ",.0f"),
    ("bytes down", "bytes_down", 1.0, ",.0f"),
    ("target busy, s", "target_s", 1.0, ",.3f"),
    ("draft busy, s", "draft_s", 1.0, ",.3f"),
    ("reconnects", "reconnects", 1.0, ",.1f"),
)


def show(done: "Replayed") -> None:
    """The figures for people."""
    from rich.console import Console

    console = Console(soft_wrap=True)
    console.print(_table(done))
    of = done.scenario
    profiles = (("edge", of.draft), ("cloud", of.target), ("draft in the cloud", of.cloud_draft), ("link", of.link))
    for name, profile in profiles:
        if profile is None:
            continue
        console.print(f"{name}: {profile.title} ({profile.name})", highlight=False, markup=False)
    if done.same_events is not None:
        said = "everything happened as recorded" if done.same_events else "it did NOT happen as recorded"
        console.print(f"the text is the recorded one, and {said}", highlight=False)
    else:
        what = "stand-ins for the recorded tokens" if done.record.setup.private else "the recorded one"
        console.print(f"the text is {what if done.same_tokens else 'NOT the recorded one'}", highlight=False)
    warned = Console(stderr=True, soft_wrap=True)
    cut = [f"the record is {done.record.cut}; what there is was replayed"] if done.record.cut else []
    for warning in (*cut, *done.record.notes, *done.replication.warnings):
        warned.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)


def _table(done: "Replayed") -> "Table":
    from rich.table import Table

    sessions = len(done.replication.finished)
    table = Table(title=str(done.record.path), caption=f"means over {sessions} session(s)" if sessions > 1 else None)
    table.add_column("", no_wrap=True)
    table.add_column(f"recorded: {done.record.setup.policy}", justify="right")
    table.add_column(f"replayed: {done.policy}", justify="right")
    table.add_column("difference", justify="right", no_wrap=True)
    for title, name, scale, form in _ROWS:
        ratio = _ratio(done, name)
        table.add_row(
            title,
            format(done.recorded[name] * scale, form) if done.recorded else "not known",
            format(done.replayed[name] * scale, form),
            "" if ratio is None else f"{ratio - 1.0:+.1%}",
        )
    return table
