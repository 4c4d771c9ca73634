"""What ``foredraft generate`` shows and writes: the text as it comes, and afterwards what the session did."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from foredraft.edge.session_report import BY_REJECTION, SERVER, exactness
from foredraft.protocol.sampling import NOISE
from foredraft.text.inert import inert

if TYPE_CHECKING:
    from foredraft.api.generation import Generation
    from foredraft.edge.local import LocalEvent
    from foredraft.edge.session_report import SessionReport
    from foredraft.links.shaping import ProxyReport
    from foredraft.observe.record.reading import Record


def tell(generation: "Generation", extra: dict[str, Any], links: "Sequence[ProxyReport]", *, as_json: bool) -> None:
    """What the session did: as one JSON object with ``extra`` in it, or for people on stderr."""
    if as_json:
        more = extra | {"emulated_links": list(map(asdict, links))}
        typer.echo(json.dumps(asdict(generation.report) | more))
        return
    report = generation.report
    exact = exactness(report.exact) if report.acceptance == NOISE else BY_REJECTION
    for line in (*summary(report, extra["policy_spec"]), exact, *extra.get("explanation", ())):
        typer.echo(line, err=True)
    for link in links:
        typer.echo(f"EMULATION: {link}", err=True)
    if extra["pace"]:
        typer.echo(f"EMULATION: draft steps took the time of {extra['pace']}", err=True)


def summary(report: "SessionReport", policy_spec: str) -> list[str]:
    """What a session did, in a few lines for people."""
    policy = f"{policy_spec} (recommended by the server)" if report.policy_from == SERVER else report.policy
    translated = ", translated from another tokenizer" if report.translated else ""
    forced = f", {report.forced} tokens forced by the grammar" if report.forced else ""
    own = f", then {len(report.unverified)} UNVERIFIED" if report.unverified else ""
    lines = [
        f"{policy}, seed {report.seed}, temperature {report.temperature:g}: "
        f"{report.new_tokens} tokens{own}, ended by {report.finish_reason}",
        f"first token {report.ttft_s:.3f} s, then {report.tpot_s * 1e3:.1f} ms per token, {report.e2e_s:.2f} s in all",
        f"{report.passes} passes, {report.tokens_per_pass:.2f} tokens per pass, "
        f"{report.accepted} of {report.drafted} drafted tokens accepted{translated}{forced}",
    ]
    if report.hints:
        tried = report.predraft_hits + report.predraft_misses
        lines.append(
            f"{report.hints_right} of {report.hints} hints right, "
            f"drafting ahead hit {report.predraft_hits} of {tried} times"
        )
    if report.image_s:
        lines.append(f"images: {report.image_bytes} bytes sent, seen after {report.image_s:.3f} s")
    again = f", {report.reconnects} reconnects" if report.reconnects else ""
    lines.append(f"{report.bytes_up} bytes up ({report.opening_bytes_up} to open), {report.bytes_down} down{again}")
    return lines


def local_line(event: "LocalEvent", decode: Callable[[list[int]], str]) -> str:
    """What happened to the text beyond the committed one, in a line."""
    from foredraft.edge.local import Confirmed, Unverified

    if isinstance(event, Confirmed):
        return f"CONFIRMED up to token {event.position}"
    word = "UNVERIFIED" if isinstance(event, Unverified) else "WITHDRAWN"
    return f"{word} from token {event.position}: {decode(list(event.tokens))!r} ({len(event.tokens)} tokens)"


def show(text: str) -> None:
    """Put a piece of text out at once; on a terminal nothing in it acts."""
    typer.echo(inert(text) if sys.stdout.isatty() else text, nl=False)
    sys.stdout.flush()


def write_views(record: "Record", events: Path | None, trace: Path | None) -> None:
    """The session as lines of events, and as a trace."""
    from foredraft.files import written_together
    from foredraft.observe.record.event_lines import event_lines
    from foredraft.observe.trace import chrome_trace

    files: dict[Path, bytes] = {}
    if events is not None:
        files[events] = event_lines(record)
    if trace is not None:
        files[trace] = chrome_trace([record])
    written_together(files)
