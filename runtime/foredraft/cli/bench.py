"""``foredraft bench``: what the project promises, measured here and now.

Benches of other packages, the simulator's among them, come through the entry-point group
``foredraft.benches``: a function is one bench, a typer app a group of them.
"""

import json
import os
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from foredraft.cli.main import command_of
from foredraft.progress import progress

if TYPE_CHECKING:
    from foredraft.bench.result import Result

GROUP = "foredraft.benches"


class Benches(TyperGroup):
    """The benches here, and those of other installed packages."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        return sorted({*super().list_commands(ctx), *entry_points(group=GROUP).names})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The bench of that name; None where there is none."""
        known = entry_points(group=GROUP)
        return command_of(known[cmd_name]) if cmd_name in known.names else super().get_command(ctx, cmd_name)


app = typer.Typer(cls=Benches, help="Measure what the project promises, here and now.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Model = Annotated[str, typer.Option(help="Target: folder, hub id or 'demo'.")]
Exits = Annotated[Path | None, typer.Option(help="Its exit heads; the bundled target brings its own.")]
Draft = Annotated[str, typer.Option(help="Draft: folder, hub id or 'demo'.")]
Threads = Annotated[int, typer.Option(help="Threads of torch; 0 leaves its default.")]


@app.callback()
def bench() -> None:
    """Measure what the project promises, here and now."""


@app.command()
def overhead(
    rounds: Annotated[int, typer.Option(help="Verification rounds to time.", min=10)] = 2000, as_json: Json = False
) -> None:
    """What the session logic costs per verification round: at most 0.3 ms."""
    from foredraft.bench.overhead import measure

    show([_run(measure(rounds))], as_json)


@app.command()
def uplink(as_json: Json = False) -> None:
    """Bytes that a round of sync at gamma 4 sends: at most 40."""
    from foredraft.bench.uplink import measure

    show([_run(measure())], as_json)


@app.command()
def edge_memory(as_json: Json = False) -> None:
    """Memory of an edge with the n-gram drafter: at most 80 MB, and no model library."""
    from foredraft.bench.edge_memory import measure

    show([_run(measure())], as_json)


@app.command()
def first_token(
    texts: Annotated[int, typer.Option(help="Texts of each kind.", min=1)] = 15, as_json: Json = False
) -> None:
    """Round trips to the first token: at most 1.15 over a connection that was kept."""
    from foredraft.bench.first_token import measure

    show([_run(measure(texts))], as_json)


@app.command()
def engine(
    model: Model = "demo",
    exits: Exits = None,
    draft: Draft = "demo",
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """The engines against transformers' own generation: at least as fast."""
    from foredraft.bench.engine import measure

    show([_run(measure(model, exits, draft, threads))], as_json)


@app.command()
def batching(
    model: Model = "demo",
    exits: Exits = None,
    threads: Threads = 0,
    new_tokens: Annotated[int, typer.Option(help="Tokens of a text.", min=8)] = 64,
    peer: Annotated[bool, typer.Option(help="Beside transformers' continuous batching as well.")] = True,
    as_json: Json = False,
) -> None:
    """Many sessions on one target against transformers' own batches."""
    from foredraft.bench.batching import measure

    show([_run(measure(model, exits, threads, new_tokens=new_tokens, peer=peer))], as_json)


@app.command()
def exact(
    model: Model = "demo",
    exits: Exits = None,
    draft: Draft = "demo",
    threads: Threads = 0,
    new_tokens: Annotated[int, typer.Option(help="Tokens of a text.", min=4)] = 24,
    as_json: Json = False,
) -> None:
    """Texts in bfloat16 that differ between policies, drafts and company: with --exact on none."""
    from foredraft.bench.exact import measure

    show([_run(measure(model, exits, draft, threads, new_tokens=new_tokens))], as_json)


@app.command()
def acceptance(
    model: Model = "demo",
    draft: Draft = "demo",
    threads: Threads = 0,
    new_tokens: Annotated[int, typer.Option(help="Tokens of a text.", min=8)] = 64,
    seeds: Annotated[int, typer.Option(help="Texts of each prompt.", min=1)] = 4,
    as_json: Json = False,
) -> None:
    """Tokens per pass by shared noise and by rejection sampling, in chains and in trees, at T = 0.6, 0.8, 1."""
    from foredraft.bench.acceptance import measure
    from foredraft.errors import needs

    needs("torch")
    show([_run(measure(model, draft, threads, new_tokens=new_tokens, seeds=seeds))], as_json)


@app.command()
def noise(
    turns: Annotated[int, typer.Option(help="Turns of each; they alternate.", min=1)] = 9, as_json: Json = False
) -> None:
    """Sampling from 152k tokens over the output layer: at most a tenth."""
    from foredraft.bench.noise import measure

    show([_run(measure(turns))], as_json)


@app.command()
def grammar(passes: Annotated[int, typer.Option(help="Passes to time.", min=3)] = 30, as_json: Json = False) -> None:
    """Masks of 152k tokens over a pass of a 0.5B model: at most a twentieth; and the passes that they save."""
    from foredraft.bench.grammar import measure
    from foredraft.errors import needs

    needs("torch", "llguidance")
    show([_run(measure(passes))], as_json)


@app.command()
def trust(
    texts: Annotated[int, typer.Option(help="Texts of each way beside keys that flood.", min=3)] = 24,
    connections: Annotated[int, typer.Option(help="Connections that say nothing.", min=1)] = 1000,
    sessions: Annotated[int, typer.Option(help="Texts whose server is killed.", min=1)] = 64,
    minutes: Annotated[float, typer.Option(help="Of sessions that go on; 60 are what is promised.", min=0.1)] = 5.0,
    only: Annotated[list[str] | None, typer.Option(help="shares, idle, killed or steady; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """What others can spoil: a quiet key beside a flood, idle connections, a server that is killed, memory."""
    from foredraft.errors import UnknownNameError, needs

    needs("torch")
    from foredraft.bench import idle_connections, killed_server, steady

    def shares() -> "Coroutine[Any, Any, Result]":
        from foredraft.bench.trust import measure  # last, as it brings torch into what is the others' edge

        return measure(texts)

    measures: dict[str, Callable[[], Coroutine[Any, Any, Result]]] = {
        "idle": lambda: idle_connections.measure(connections),
        "killed": lambda: killed_server.measure(sessions),
        "steady": lambda: steady.measure(minutes),
        "shares": shares,
    }
    for name in only or ():
        if name not in measures:
            raise UnknownNameError("measurement", name, measures)
    with progress("bench trust"):
        show([_run(measure()) for name, measure in measures.items() if name in (only or measures)], as_json)


@app.command()
def gpu(
    shape: Annotated[str, typer.Option(help="Shape of the model; its weights are random.")] = "llama2-7b",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "bfloat16",
    device: Annotated[str, typer.Option(help="cuda, cuda:1 ...")] = "cuda",
    passes: Annotated[int, typer.Option(help="Passes of each kind.", min=1)] = 30,
    as_json: Json = False,
) -> None:
    """Passes on a GPU over the time in which it reads the weights once: at most 1.3."""
    from foredraft.bench.gpu import measure

    show([_run(measure(shape, dtype, device, passes=passes))], as_json)


@app.command()
def drafters(
    gguf: Annotated[Path, typer.Option(help="A GGUF file: as it is on llama.cpp, dequantised on torch.")],
    turns: Annotated[int, typer.Option(help="Steps of each kind; they alternate.", min=3)] = 15,
    new_tokens: Annotated[int, typer.Option(help="Tokens of a text, for acceptance.", min=1)] = 64,
    llama_server: Annotated[str, typer.Option(help="URL of a llama-server that runs the same file, to compare.")] = "",
    as_json: Json = False,
) -> None:
    """A GGUF draft on llama.cpp over torch: a step of 1 node at most 0.6; at most 1.5 ms around the decode."""
    from foredraft.errors import extras_named

    with extras_named():
        from foredraft.bench.drafters import measure

        show([_run(measure(gguf, turns, new_tokens, llama_server))], as_json)


@app.command()
def real(
    turns: Annotated[int, typer.Option(help="Texts of each way; they take turns.", min=1)] = 6,
    new_tokens: Annotated[int, typer.Option(help="Tokens of a text.", min=16)] = 128,
    paced: Annotated[bool, typer.Option(help="With a target of 60 ms and a draft of 6 ms.")] = True,
    unpaced: Annotated[bool, typer.Option(help="As fast as the machine is.")] = True,
    as_json: Json = False,
) -> None:
    """The policies on the wall clock: edge and cloud a core each, 12 ms apart. auto: at most 0.60 of cloud, paced."""
    from foredraft.bench.real import measure

    with progress("bench real"):
        results = measure(turns, new_tokens, paced=paced, unpaced=unpaced)
    show(results, as_json)


@app.command(name="all")
def everything(as_json: Json = False) -> None:
    """All of them that take seconds, one after the other: ``real`` takes minutes, and is left out."""
    from foredraft.bench import edge_memory, engine, first_token, overhead, uplink

    results: list[Result] = []
    with progress("benchmarks", count=True) as tell:
        modules = (uplink, first_token, overhead, edge_memory, engine)
        for module in modules:
            tell(len(results), len(modules), module.__name__.rpartition(".")[2])
            results.append(_run(module.measure()))
    show(results, as_json)


def _run(measuring: "Coroutine[Any, Any, Result]") -> "Result":
    import asyncio

    from foredraft.loop import new_event_loop

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(measuring)


def show(results: "list[Result]", as_json: bool) -> None:
    """Print the figures, and how busy the machine was. Exit code 1 when a bound does not hold."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # which Windows lacks
    machine = {"cores": os.cpu_count() or 1, "load": load}
    if as_json:
        said = {
            result.name: {
                "method": result.method,
                "figures": [asdict(figure) | {"holds": figure.holds} for figure in result.figures],
            }
            for result in results
        }
        typer.echo(json.dumps(said | {"machine": machine}))
    else:
        for result in results:
            typer.echo(f"{result.name}: {result.method}")
            for figure in result.figures:
                typer.echo(f"  {figure}")
        if load is not None:
            typer.echo(f"the machine: {machine['cores']} cores, {load:.1f} runnable in the last minute on average")
    if any(figure.holds is False for result in results for figure in result.figures):
        raise typer.Exit(1)
