"""``foredraft doctor``: is everything there to run, and what is the way out where it is not?"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

_MARKS = {"ok": "ok  ", "note": "note", "fail": "FAIL"}


def doctor(
    server: Annotated[str, typer.Option(help="URL of a server to look at: link, models, certificate.")] = "",
    draft: Annotated[
        str, typer.Option(help="A draft to hold against the server's model: 'demo', 'ngram', a folder.")
    ] = "",
    api_key: Annotated[str, typer.Option(help="The server's key.", envvar="FOREDRAFT_API_KEY", show_envvar=True)] = "",
    ssl_cafile: Annotated[Path | None, typer.Option(help="PEM certificate to trust.")] = None,
    seconds: Annotated[float, typer.Option(help="How long to measure the link.", min=0.5, max=60.0)] = 3.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, to paste into a report.")] = False,
) -> None:
    """Look at versions, extras, devices and, with --server, at the way there and what is served.

    Ends with 1 if anything fails.
    """
    import asyncio

    from foredraft.calibration.doctor import look_at_server, look_here
    from foredraft.loop import new_event_loop

    found = look_here()
    if server:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            found += runner.run(look_at_server(server, draft, api_key, ssl_cafile, seconds))
    failed = any(one.state == "fail" for one in found)
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "findings": [asdict(one) for one in found]}))
    else:
        for one in found:
            typer.echo(f"{_MARKS[one.state]}  {one.what}: {one.said}")
            if one.way_out:
                typer.echo(f"      {one.way_out}")
    if failed:
        raise typer.Exit(1)
