"""``foredraft profile``: measure devices and links, and write what was found as hardware profiles."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from foredraft.cli.options import DraftOption
from foredraft.progress import progress

if TYPE_CHECKING:
    from foredraft.calibration.device import Measured
    from foredraft.calibration.link import MeasuredLink
    from foredraft.profiles.schema import Profile

app = typer.Typer(help="Measure a device or a link, and write its hardware profile.", no_args_is_help=True)

Name = Annotated[str, typer.Option(help="The profile's name; its file is NAME.toml.", show_default=False)]
Out = Annotated[Path, typer.Option(help="Folder for the file.")]
Force = Annotated[bool, typer.Option("--force", help="Write what a noisy machine gave, too.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object with every measured point.")]

_MS: Final = 1e3


@app.callback()
def profile() -> None:
    """Measure a device or a link, and write its hardware profile."""


@app.command()
def device(
    name: Name,
    role: Annotated[str, typer.Option(help="draft or target.")] = "target",
    model: Annotated[str, typer.Option(help="Folder, hub id, GGUF file, 'demo' (bundled) or 'ngram'.")] = "demo",
    shape: Annotated[
        str, typer.Option(help="Random weights of this shape in its place: llama2-7b, llama-68m, tiny.")
    ] = "",
    exits: Annotated[Path | None, typer.Option(help="Folder of the target's exit heads.")] = None,
    exit_layers: Annotated[str, typer.Option(help="With --shape: exits after these layers, such as 8,16,24.")] = "",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    threads: Annotated[int, typer.Option(help="Threads of the model; 0 leaves the default.", min=0)] = 1,
    contexts: Annotated[str, typer.Option(help="Cached tokens, such as 1,512,2048; by default by the model.")] = "",
    tokens: Annotated[str, typer.Option(help="New tokens per call, such as 1,2,4,8; by default up to 32.")] = "",
    draft_option: DraftOption = None,
    batches: Annotated[str, typer.Option(help="Texts at once, such as 1,8,32 (targets only).")] = "1",
    repeats: Annotated[int, typer.Option(help="Calls of each kind.", min=3)] = 25,
    machine: Annotated[str, typer.Option(help="What to call this machine; by default what the system says.")] = "",
    out: Out = Path(),
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Measure a draft or target on this machine, fit the compute model, and write its profile.

    Nothing is written where calls vary by more than a fifth: the machine is busy with other things.
    """
    import asyncio

    from foredraft.api.loading import ModelOptions
    from foredraft.calibration.device import measure
    from foredraft.calibration.report import as_json as plain
    from foredraft.calibration.request import Wanted
    from foredraft.loop import new_event_loop

    _refuse_both(model, shape, exits, exit_layers)
    wanted = Wanted(
        name=_name(name),
        role=_role(role),
        model=model,
        shape=shape,
        exits=exits,
        exit_layers=_counts("exit-layers", exit_layers),
        options=ModelOptions(device, dtype, threads, draft=tuple(draft_option or ())),
        contexts=_counts("contexts", contexts),
        tokens=_counts("tokens", tokens),
        batches=_counts("batches", batches) or (1,),
        repeats=repeats,
        machine=machine,
    )
    _check_folder(out)
    with progress("measuring") as show, asyncio.Runner(loop_factory=new_event_loop) as runner:
        measured = runner.run(measure(wanted, progress=lambda share: show(share, 1.0, "")))
    if as_json:
        typer.echo(plain(measured))
    else:
        _show_device(measured)
    if not force:
        measured.check()
    _write(measured.profile, out, quiet=as_json)


@app.command()
def link(
    server: Annotated[str, typer.Option(help="URL of a Foredraft server.", show_default=False)],
    name: Name = "link",
    seconds: Annotated[float, typer.Option(help="About how long to measure.", min=1.0, max=300.0)] = 10.0,
    api_key: Annotated[str, typer.Option(help="The server's key.", envvar="FOREDRAFT_API_KEY", show_envvar=True)] = "",
    out: Out = Path(),
    as_json: Json = False,
) -> None:
    """Measure the link to a server: round trip, jitter, rate both ways, and loss where it shows."""
    import asyncio
    import json

    from foredraft.calibration.link import measured_link
    from foredraft.links.probing import probe
    from foredraft.loop import new_event_loop

    name = _name(name)
    _check_folder(out)
    with progress("measuring") as show, asyncio.Runner(loop_factory=new_event_loop) as runner:
        samples = runner.run(
            probe(server, seconds=seconds, api_key=api_key, progress=lambda share: show(share, 1.0, ""))
        )
    measured = measured_link(samples, name)
    if as_json:
        typer.echo(json.dumps(measured.figures()))
    else:
        _show_link(measured)
    _write(measured.profile, out, quiet=as_json)


def _refuse_both(model: str, shape: str, exits: Path | None, exit_layers: str) -> None:
    from foredraft.errors import ConfigError

    if shape and (model != "demo" or exits is not None):
        raise ConfigError("--shape takes the place of --model and --exits; leave those out")
    if exit_layers and not shape:
        raise ConfigError("--exit-layers is for --shape; a model's exits come from its --exits folder")


def _role(role: str) -> Literal["draft", "target"]:
    from foredraft.errors import UnknownNameError

    if role == "draft":
        return "draft"
    if role == "target":
        return "target"
    raise UnknownNameError("role", role, ("draft", "target"))


def _name(name: str) -> str:
    from foredraft.errors import ConfigError

    if not name or name != Path(name).name or name.startswith("."):
        raise ConfigError(f"--name {name!r} is no name of a file; use letters, digits, - and _")
    return name


def _counts(option: str, text: str) -> tuple[int, ...]:
    """``"1,8,32"`` as numbers. Raises ConfigError."""
    from foredraft.errors import ConfigError

    try:
        counts = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        counts = (0,)
    if any(count < 1 for count in counts):
        raise ConfigError(f"--{option} {text!r}: whole numbers of 1 or more, with commas between, such as 1,8,32")
    return counts


def _check_folder(out: Path) -> None:
    from foredraft.errors import ConfigError

    if not out.is_dir():
        raise ConfigError(f"--out {str(out)!r} is no folder; make it first")


def _write(profile: "Profile", out: Path, *, quiet: bool) -> None:
    from foredraft.errors import ConfigError
    from foredraft.profiles.reading import parse_profile
    from foredraft.profiles.writing import render_profile

    path = out / f"{profile.name}.toml"
    text = render_profile(profile)
    parse_profile(text, path)  # what cannot be read back is not written
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
    typer.echo(f"wrote {path}", err=quiet)


def _show_device(measured: "Measured") -> None:
    from foredraft.calibration.report import device_lines

    for line in device_lines(measured):
        typer.echo(line)


def _show_link(measured: "MeasuredLink") -> None:
    for line in measured.lines():
        typer.echo(line)
