"""``foredraft fit-pair``: a synthetic pair with the statistics of somebody's records."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foredraft.progress import progress

if TYPE_CHECKING:
    from foredraft.observe.record.reading import Record
    from foredraft_sim.fit.error import Checked
    from foredraft_sim.replay.replay import Changes
    from foredraft_sim.tokens.fitted import FittedPair

_POLICIES = ("sync:gamma=4", "seed:gamma=4", "auto")


def fit_pair(
    records: Annotated[list[Path] | None, typer.Argument(help="What --record wrote.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="The pair's file, for pair = FILE in a scenario.")] = Path("pair.toml"),
    accepted: Annotated[
        str,
        typer.Option(help="In the place of records: how often the 1st, 2nd, ... drafted token was accepted."),
    ] = "",
    source: Annotated[str, typer.Option(help="With --accepted: where that is from.")] = "",
    layers: Annotated[int, typer.Option(help="With --accepted: the target's layers.", min=1)] = 32,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Measure with this policy; may be repeated; else sync, seed and auto."),
    ] = None,
    edge: Annotated[str, typer.Option(help="Measure with another device: a profile.", show_default="as recorded")] = "",
    cloud: Annotated[
        str, typer.Option(help="Measure with another server: a profile.", show_default="as recorded")
    ] = "",
    link: Annotated[
        list[str] | None, typer.Option(help="Measure over this link, too: a profile; may be repeated.")
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out/--no-held-out", help="Measure it on texts without which a pair was fitted, too.")
    ] = True,
    tokens: Annotated[int, typer.Option(help="Simulate so many for each; 0: measure no error.", min=0)] = 24_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit a synthetic pair to records: topics, runs of right tokens, and how texts begin; and measure its error.

    Each record is replayed, and as many texts of the pair are simulated on the same devices and links; then the same
    with pairs that were fitted to the other records alone. Where the time per token differs by more than 3%, that is
    named, and the exit code is 1; the file is written all the same.
    """
    from foredraft.errors import ConfigError
    from foredraft.files import check_folders, written_together
    from foredraft.observe.record.reading import read_record
    from foredraft_sim.fit.fit import fit
    from foredraft_sim.fit.pair_file import render

    if bool(records) == bool(accepted):
        raise ConfigError("give records to fit a pair to, or --accepted 0.74,0.54,... of a publication")
    check_folders([out])
    if accepted:
        _published(out, accepted, source, layers, as_json=as_json)
        return
    read = [read_record(path) for path in records or ()]
    changes = _changes(policy or _POLICIES, edge, cloud, link or ())
    pair = fit(read)
    checked = _checked([(record, pair) for record in read], changes, tokens)
    others, alone = _others(read) if held_out and tokens else ([], None)
    if others:
        checked += _checked(others, changes, tokens, held_out=True)
    notes = ["Written by foredraft fit-pair.", *(_line(one) for one in checked)]
    written_together({out: render(pair, notes).encode()})
    _tell(_said(pair, checked, out) | {"not_held_out": alone}, as_json=as_json)
    if any(one.missed for one in checked):
        raise typer.Exit(1)


def _changes(policies: Sequence[str], edge: str, cloud: str, links: Sequence[str]) -> "list[Changes]":
    """What is measured: each policy over the recorded link and over each other one."""
    from foredraft.policies import make_policy
    from foredraft.policies.policy_file import spec_of
    from foredraft.profiles import load_profile
    from foredraft_sim.replay.replay import Changes

    specs = [spec_of(policy) for policy in policies]
    for spec in specs:
        make_policy(spec)  # one that cannot be made is named before the work
    draft = load_profile(edge, "draft") if edge else None
    target = load_profile(cloud, "target") if cloud else None
    ways = [None, *(load_profile(link, "link") for link in links)]
    return [Changes(spec, draft, target, link=way) for way in ways for spec in specs]


def _others(records: "Sequence[Record]") -> "tuple[list[tuple[Record, FittedPair]], str | None]":
    """The records with pairs of the others; or none, and why."""
    from foredraft.errors import RecordError
    from foredraft_sim.fit.held_out import held_out

    try:
        return held_out(records), None
    except RecordError as error:
        return [], str(error)


def _checked(
    pairs: "Sequence[tuple[Record, FittedPair]]", changes: "Sequence[Changes]", tokens: int, *, held_out: bool = False
) -> "list[Checked]":
    from foredraft_sim.fit.check import check

    if not tokens:
        return []
    what = "measuring the error on held-out texts" if held_out else "measuring the error"
    with progress(what, count=True) as show:
        return check(pairs, changes, tokens=tokens, held_out=held_out, tell=show)


def _published(out: Path, accepted: str, source: str, layers: int, *, as_json: bool) -> None:
    from foredraft.files import written_together
    from foredraft_sim.fit.pair_file import render
    from foredraft_sim.fit.published import published_pair, rates_in, shown

    rates = rates_in(accepted)
    pair = published_pair(rates, source, layers)
    ours = shown(rates)
    notes = [
        f"Written by foredraft fit-pair --accepted {accepted}",
        f"The pair shows {', '.join(f'{one:.3f}' for one in ours)}. Nothing is known of second choices, nor of exits.",
    ]
    written_together({out: render(pair, notes).encode()})
    said = _said(pair, [], out) | {"accepted": list(rates), "shown": ours}
    if as_json:
        _tell(said, as_json=True)
        return
    for depth, (theirs, shows) in enumerate(zip(rates, ours, strict=True), 1):
        typer.echo(f"drafted token {depth}: published {theirs:.3f}, the pair {shows:.3f} ({shows - theirs:+.3f})")
    typer.echo(f"wrote {out}")


def _said(pair: "FittedPair", checked: "Sequence[Checked]", out: Path) -> dict[str, Any]:
    return {
        "out": str(out),
        "source": pair.source,
        "topics": [{"share": topic.share, "states": len(topic.states)} for topic in pair.topics],
        "checked": [one.plain() for one in checked],
        "missed": [_line(one) for one in checked if one.missed],
    }


def _line(one: "Checked") -> str:
    where = f"{one.policy} over {one.link}" + (", held out" if one.held_out else "")
    return (
        f"{where}: {one.replayed_s * 1e3:.2f} ms per token replayed, {one.simulated_s * 1e3:.2f} simulated "
        f"({one.off:+.1%} ±{one.half:.1%})"
    )


def _tell(said: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(said).decode())
        return
    from rich.console import Console
    from rich.table import Table

    from foredraft_sim.fit.error import MOST_OFF

    table = Table(title=said["source"], caption="time per token after the first; ±: half of a 95% confidence interval")
    for title in ("policy", "link", "texts"):
        table.add_column(title, no_wrap=True)
    for title in ("replayed, ms", "simulated, ms", "off", "by group", "tokens per pass", "simulated"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in said["checked"]:
        times = [f"{one[name] * 1e3:.2f}" for name in ("replayed_s", "simulated_s")]
        passes = [f"{one[name]:.3f}" for name in ("replayed_tokens", "simulated_tokens")]
        texts = "held out" if one["held_out"] else "fitted to"
        groups = f"{one['groups'][0]:+.1%} to {one['groups'][-1]:+.1%}" if one["held_out"] else ""
        off = f"{one['off']:+.1%} ±{one['half']:.1%}"
        table.add_row(one["policy"], one["link"], texts, *times, off, groups, *passes)
    console = Console(soft_wrap=True)
    console.width = max(console.width, 152)
    console.print(table)
    shares = ", ".join(f"{one['share']:.0%} ({one['states']} states)" for one in said["topics"])
    console.print(f"topics: {shares}", highlight=False)
    if said["not_held_out"]:
        console.print(f"no texts were held out: {said['not_held_out']}", highlight=False)
    for line in said["missed"]:
        console.print(f"MISSED: more than {MOST_OFF:.0%} off: {line}", highlight=False)
    name = Path(said["out"]).name
    console.print(f'wrote {said["out"]}; at the top of a scenario beside it: pair = "{name}"', highlight=False)
