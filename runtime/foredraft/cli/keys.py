"""``foredraft keys``: the file of a server's keys: add one, list them, revoke one."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

File = Annotated[Path, typer.Option(help="The file of keys, as serve --api-keys has it.")]

app = typer.Typer(help="The keys of a server: add one, list them, revoke one.", no_args_is_help=True)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What the key is called in logs.")],
    file: File = Path("keys.toml"),
    role: Annotated[
        list[str] | None,
        typer.Option(help="What it is for: serve, metrics or probe; repeatable.", show_default="serve"),
    ] = None,
    days: Annotated[float | None, typer.Option(help="It expires after so many days.", min=0.0)] = None,
    sessions: Annotated[int, typer.Option(help="Texts at once; 0 for no limit.", min=0)] = 0,
    connections: Annotated[int, typer.Option(help="Connections at once; 0 for no limit.", min=0)] = 0,
    tokens_per_minute: Annotated[int, typer.Option(help="Of prompts and texts; 0 for no limit.", min=0)] = 0,
    bytes_per_minute: Annotated[int, typer.Option(help="Of all that its edges send; 0 for no limit.", min=0)] = 0,
    image_bytes_per_minute: Annotated[int, typer.Option(help="Of images among it; 0 for no limit.", min=0)] = 0,
    context: Annotated[int, typer.Option(help="Longest prompt with its text; 0 for the model's.", min=0)] = 0,
    cache: Annotated[int, typer.Option(help="Tokens that its texts hold at once; 0 for no limit.", min=0)] = 0,
    weight: Annotated[float, typer.Option(help="Of its share of the device, beside others' that want it.")] = 1.0,
) -> None:
    """Add a key, and print its secret: once, for it is kept nowhere. A server takes it up within a second."""
    from foredraft.errors import ConfigError
    from foredraft.files import written_together
    from foredraft.keys import SERVE, Key, check_name, hash_of, new_secret, parse_keys, with_key

    check_name(name)
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if name in parse_keys(text, file):
        raise ConfigError(f"{file} has a key {name!r} already; revoke it, or take another name")
    secret = new_secret()
    expires = None if days is None else (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)
    key = Key(
        name=name,
        hash=hash_of(secret),
        roles=tuple(role or (SERVE,)),
        expires=expires,
        sessions=sessions,
        connections=connections,
        tokens_per_minute=tokens_per_minute,
        bytes_per_minute=bytes_per_minute,
        image_bytes_per_minute=image_bytes_per_minute,
        context=context,
        cache=cache,
        weight=weight,
    )
    text = with_key(text, key)
    parse_keys(text, file)
    written_together({file: text.encode()})
    typer.echo(secret)
    typer.echo(f"added {name!r} to {file}; this is the only time that its secret is shown", err=True)


@app.command("list")
def list_(
    file: File = Path("keys.toml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the keys: names, roles, limits and when they expire. Secrets are not in the file."""
    from foredraft.keys import LIMITS, Key, read_keys

    def row(key: Key) -> dict[str, Any]:
        return {
            "roles": list(key.roles),
            "expires": None if key.expires is None else key.expires.isoformat(),
            "weight": key.weight,
        } | {limit: getattr(key, limit) for limit in LIMITS}

    rows = {name: row(key) for name, key in read_keys(file).items()}
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for name, found in rows.items():
        limits = [f"{what} {found[what]}" for what in LIMITS if found[what]]
        expires = [] if found["expires"] is None else [f"expires {found['expires']}"]
        weight = [] if found["weight"] == 1.0 else [f"weight {found['weight']:g}"]
        typer.echo(f"{name:20} {', '.join([*found['roles'], *limits, *weight, *expires])}")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Which key.")],
    file: File = Path("keys.toml"),
) -> None:
    """Take a key out of the file. What a server does for it ends within a second."""
    from foredraft.errors import ConfigError, UnknownNameError
    from foredraft.files import written_together
    from foredraft.keys import parse_keys, read_keys, without_key

    known = read_keys(file)
    if name not in known:
        raise UnknownNameError("key", name, known)
    text = without_key(file.read_text(encoding="utf-8"), name)
    if parse_keys(text, file) != {other: key for other, key in known.items() if other != name}:
        raise ConfigError(f"{file} is written in a way of its own: take the table of {name!r} out by hand")
    written_together({file: text.encode()})
    typer.echo(f"revoked {name!r}", err=True)
