"""Options that several verbs take."""

from typing import Annotated

import typer

Draft = Annotated[
    str, typer.Option(help="'ngram', 'demo', or folder, hub id or GGUF file of a model with the same tokenizer.")
]
DraftOption = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE for a GGUF draft: context, threads, batch_threads, gpu_layers, ...; repeatable."),
]
