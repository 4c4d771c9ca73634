"""``foredraft serve``: a cloud that verifies what edges draft."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foredraft.cli.options import DraftOption, Otel, StrangerKib, Strangers, StrangersPerSecond, Translate

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext

    from foredraft.api.cloud import Cloud
    from foredraft.server.bounds import Bounds


def serve(
    model: Annotated[str, typer.Option(help="Folder, hub id or GGUF file of the target, or 'demo'.")] = "demo",
    exits: Annotated[Path | None, typer.Option(help="Folder of exit heads made for this model.")] = None,
    draft: Annotated[
        str, typer.Option(help="A draft model beside the target, for the policies 'colocated' and 'both' (or 'ngram').")
    ] = "",
    draft_option: DraftOption = None,
    translate: Translate = False,
    policy: Annotated[
        str,
        typer.Option(help="Recommend this policy, or policy file, to edges that are given none of their own."),
    ] = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8471,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    quantization: Annotated[
        str, typer.Option(help="Of the target's weights: int8, int4, bnb-int8, bnb-nf4; empty for none.")
    ] = "",
    tensor_parallel: Annotated[
        int,
        typer.Option(help="Share the target among so many ranks, a device each.", min=1, max=64),
    ] = 1,
    exact: Annotated[
        str,
        typer.Option(help="Texts equal to the bit whatever shares a pass: on, off, or auto, where it costs little."),
    ] = "auto",
    pace: Annotated[str, typer.Option(help="Emulate the device of this hardware profile (name or file).")] = "",
    api_key: Annotated[
        str, typer.Option(help="Edges must show this key.", envvar="FOREDRAFT_API_KEY", show_envvar=True)
    ] = "",
    api_keys: Annotated[
        Path | None, typer.Option(help="File of keys, of which edges must show one; see foredraft keys.")
    ] = None,
    ssl_certfile: Annotated[Path | None, typer.Option(help="PEM certificate: serve over TLS.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="PEM key, if not in the certificate's file.")] = None,
    max_sessions: Annotated[int, typer.Option(help="Edges at once; one more is told when to retry.")] = 64,
    strangers: Strangers = 64,
    strangers_per_second: StrangersPerSecond = 200.0,
    stranger_kib: StrangerKib = 64,
    cache_gib: Annotated[float, typer.Option(help="Memory for the caches of all sessions, in GiB.")] = 2.0,
    prefix_cache: Annotated[
        bool,
        typer.Option(
            "--prefix-cache/--no-prefix-cache",
            help="Run beginnings that a key's texts have in common once, and find them again later.",
        ),
    ] = True,
    threads: Annotated[int, typer.Option(help="Threads of the models; 0 leaves the default.")] = 0,
    show_text: Annotated[bool, typer.Option("--show-text", help="Show texts on the server's page, too.")] = False,
    otel: Otel = False,
    as_json: Annotated[bool, typer.Option("--json", help="When ready, print one JSON object.")] = False,
) -> None:
    """Serve a target model to edges until Ctrl-C."""
    from foredraft.api.cloud import Cloud
    from foredraft.api.loading import ModelOptions
    from foredraft.cli import ranks
    from foredraft.errors import ConfigError
    from foredraft.keys import KeyFile
    from foredraft.server.bounds import Bounds
    from foredraft.server.listening import tls_context

    if api_key and api_keys is not None:
        raise ConfigError("give --api-key or --api-keys, not both: put the key into the file")
    keys = None if api_keys is None else KeyFile(api_keys)
    tls = tls_context(ssl_certfile, ssl_keyfile)
    options = ModelOptions(
        device,
        dtype,
        threads,
        pace,
        quantization,
        exact,
        prefix_cache,
        tensor_parallel,
        tuple(draft_option or ()),
        translate,
    )
    if tensor_parallel > 1 and not ranks.is_launched(tensor_parallel):
        ranks.launch(tensor_parallel)
        return
    with ranks.failures_told():
        if tensor_parallel > 1 and ranks.follow(model, exits, options, cache_gib):
            return
        spans = None
        if otel:
            from foredraft.observe.spans import exported

            spans = exported("foredraft-cloud")
        cloud = Cloud.load(
            model,
            exits=exits,
            draft=draft,
            options=options,
            api_key=api_key,
            keys=keys,
            spans=spans,
            max_sessions=max_sessions,
            cache_gib=cache_gib,
            policy=policy,
        )
        bounds = Bounds(strangers=strangers, strangers_per_s=strangers_per_second, stranger_bytes=stranger_kib << 10)
        _run(cloud, host, port, tls, partial(_say, cloud, model, pace, as_json), show_text, bounds)


def _say(cloud: "Cloud", model: str, pace: str, as_json: bool, url: str) -> None:
    """The server is ready."""
    card = cloud.target.card
    if as_json:
        ready = {
            "url": url,
            "model": model,
            "model_digest": card.model_digest,
            "exits": card.exits,
            "pace": pace,
            "exact": card.exact,
        }
        typer.echo(json.dumps(ready | {"policy": cloud.recommends}))
        return
    hints = f"exits after {', '.join(map(str, card.exits))} of {card.layers} layers" if card.exits else "no exits"
    typer.echo(f"serving {model} ({hints}) at {url}")
    if cloud.recommends:
        typer.echo(f"edges without a policy of their own are recommended {cloud.recommends}")
    typer.echo("texts are exact to the bit" if card.exact else "texts are exact up to ties of the two best tokens")
    if pace:
        typer.echo(f"EMULATION: passes take the time of {pace}")


def _run(
    cloud: "Cloud",
    host: str,
    port: int,
    tls: "SSLContext | None",
    on_ready: "Callable[[str], None]",
    show_text: bool,
    bounds: "Bounds",
) -> None:
    import asyncio

    from foredraft.loop import new_event_loop

    async def until_told_to_stop() -> None:
        async with cloud:
            await cloud.serve(host, port, tls, on_ready, show_text=show_text, bounds=bounds)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(until_told_to_stop())
