"""``foredraft edge``: OpenAI's interface on the device, in front of a draft model here and a target in the cloud."""

import json
from pathlib import Path
from typing import Annotated

import typer

from foredraft.cli.options import (
    Acceptance,
    Draft,
    DraftOption,
    ImageMaxSide,
    ImageQuality,
    Otel,
    StrangerKib,
    Strangers,
    StrangersPerSecond,
    Translate,
)


def edge(
    server: Annotated[
        list[str], typer.Option(help="URL of a Foredraft server; repeat it for others to go on at when one is gone.")
    ],
    draft: Draft = "ngram",
    draft_option: DraftOption = None,
    translate: Translate = False,
    policy: Annotated[
        str | None,
        typer.Option(
            help="auto, cloud, sync, seed ..., with parameters: sync:gamma=6; or a policy file.",
            show_default="what the server recommends, else auto",
        ),
    ] = None,
    served_model_name: Annotated[
        str, typer.Option(help="What clients call the model.", show_default="as the server's model is called")
    ] = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8472,
    api_key: Annotated[str, typer.Option(help="Clients must show this key.")] = "",
    server_api_key: Annotated[
        str, typer.Option(help="The server's key.", envvar="FOREDRAFT_API_KEY", show_envvar=True)
    ] = "",
    max_running: Annotated[int, typer.Option(help="Texts at once.", min=1)] = 16,
    max_waiting: Annotated[int, typer.Option(help="Texts in line; one more is told to try later.", min=0)] = 64,
    strangers: Strangers = 64,
    strangers_per_second: StrangersPerSecond = 200.0,
    stranger_kib: StrangerKib = 64,
    acceptance: Acceptance = "noise",
    device: Annotated[str, typer.Option(help="Device of the draft model: cpu, cuda ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    threads: Annotated[int, typer.Option(help="Threads of the model; 0 leaves the default.")] = 0,
    pace: Annotated[str, typer.Option(help="Emulate the device of this hardware profile (name or file).")] = "",
    ssl_cafile: Annotated[Path | None, typer.Option(help="PEM certificate to trust.")] = None,
    ssl_certfile: Annotated[Path | None, typer.Option(help="PEM certificate: serve over TLS.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="PEM key, if not in the certificate's file.")] = None,
    show_text: Annotated[bool, typer.Option("--show-text", help="Show texts on the server's page, too.")] = False,
    otel: Otel = False,
    local: Annotated[
        bool,
        typer.Option("--local", help="Where the cloud is away, end answers with the draft's words, marked unverified."),
    ] = False,
    image_folder: Annotated[
        Path | None, typer.Option(help="Requests may name image files below it, as file:// URLs.")
    ] = None,
    image_max_side: ImageMaxSide = 0,
    image_quality: ImageQuality = 85,
    retries: Annotated[int, typer.Option(help="How often to try again in a row, waiting longer each time.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="When ready, print one JSON object.")] = False,
) -> None:
    """Serve OpenAI's interface on this device until Ctrl-C: drafted here, verified by the server."""
    import asyncio

    import msgspec

    from foredraft.api.edge import connect
    from foredraft.api.loading import ModelOptions
    from foredraft.edge.connections import Retry
    from foredraft.links.address import trusting
    from foredraft.loop import new_event_loop
    from foredraft.openai_api.images import ImageSource
    from foredraft.openai_api.server import EdgeServer
    from foredraft.policies import make_policy
    from foredraft.server.bounds import Bounds
    from foredraft.server.door import run_server
    from foredraft.server.listening import tls_context

    if policy is not None:
        make_policy(policy)  # what is wrong with it is said before anything is tried
    tls = tls_context(ssl_certfile, ssl_keyfile)
    bounds = Bounds(strangers=strangers, strangers_per_s=strangers_per_second, stranger_bytes=stranger_kib << 10)
    spans = None
    if otel:
        from foredraft.observe.spans import exported

        spans = exported("foredraft-edge")
    device_edge = connect(
        *server,
        draft=draft,
        options=ModelOptions(device, dtype, threads, pace, draft=tuple(draft_option or ()), translate=translate),
        api_key=server_api_key,
        retry=Retry(attempts=retries),
        ssl=trusting(ssl_cafile),
        spans=spans,
        acceptance=acceptance,
    )

    async def until_told_to_stop() -> None:
        async with device_edge:
            card = await device_edge.chat_card()
            if served_model_name:
                card = msgspec.structs.replace(card, name=served_model_name)
            door = EdgeServer(
                device_edge,
                card,
                policy=policy,
                api_key=api_key,
                running=max_running,
                waiting=max_waiting,
                bounds=bounds,
                show_text=show_text,
                local=local,
                images=ImageSource(image_folder, image_max_side, image_quality),
                spans=spans,
            )

            def on_ready(url: str) -> None:
                if as_json:
                    typer.echo(json.dumps({"url": url, "model": door.routes.name, "draft": draft}))
                    return
                typer.echo(f"{door.routes.name}, drafted with {draft}: point OpenAI's clients at {url}/v1")

            await run_server(door, host=host, port=port, tls=tls, on_ready=on_ready)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(until_told_to_stop())
