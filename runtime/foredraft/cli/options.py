"""Options that several verbs take."""

from typing import Annotated

import typer

Draft = Annotated[
    str,
    typer.Option(
        help="'ngram', 'demo', folder, hub id or GGUF file of a model, or llama-server:URL for llama.cpp's own."
    ),
]
DraftOption = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=VALUE for a draft on llama.cpp: context, threads, gpu_layers, candidates, ...; repeatable."
    ),
]
Translate = Annotated[
    bool, typer.Option("--translate", help="Take a draft with another tokenizer than the target's: it is translated.")
]
Acceptance = Annotated[
    str,
    typer.Option(
        help="How drafts are accepted: noise (the text does not depend on the draft), rejection, or auto: the better."
    ),
]
ImageMaxSide = Annotated[
    int, typer.Option(help="Make the longer side of larger images so many pixels before they are sent.", min=0)
]
Otel = Annotated[
    bool,
    typer.Option("--otel", help="Send traces of OpenTelemetry where OTEL_EXPORTER_OTLP_ENDPOINT says."),
]
ImageQuality = Annotated[int, typer.Option(help="Of images that are encoded again, as JPEG.", min=1, max=100)]
Strangers = Annotated[
    int, typer.Option(help="Connections of one address that have shown no key yet; 0: any number.", min=0)
]
StrangersPerSecond = Annotated[
    float, typer.Option(help="New connections of one address a second; 0: any number.", min=0.0)
]
StrangerKib = Annotated[int, typer.Option(help="What a connection may send before it has shown a key, in KiB.", min=4)]
