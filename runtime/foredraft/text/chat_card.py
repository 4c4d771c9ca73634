"""What whoever talks with a model must know beside its tokens: its chat template, and how its makers sample from it."""

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec

from foredraft.errors import ProtocolError

MAX_CARD_BYTES = 4 << 20


class ChatCard(msgspec.Struct, frozen=True):
    """A model as its folder describes it. ``template``: Jinja, or None where the model has no chat.

    ``tool_template``: the one to take where there are tools, if the model has one of its own for them.
    ``template_tokens``: the special tokens that templates name, like bos_token. The sampling is that of
    generation_config.json, temperature 0 where that says not to sample; None where it says nothing.
    """

    name: str = ""
    template: str | None = None
    template_tokens: dict[str, str] = {}
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tool_template: str | None = None

    def to_json(self) -> bytes:
        """As it travels."""
        return msgspec.json.encode(self)


def parse_chat_card(data: bytes) -> ChatCard:
    """The card in ``data``. Raises ProtocolError for anything else."""
    try:
        return msgspec.json.decode(data, type=ChatCard)
    except (ValueError, RecursionError) as error:  # msgspec lets bad UTF-8 out as UnicodeDecodeError
        raise ProtocolError(f"not a description of a chat model: {error}") from error


def read_chat_card(folder: Path) -> ChatCard:
    """The card of the model in ``folder``, as far as its files say something."""
    config, generation = _read(folder / "tokenizer_config.json"), _read(folder / "generation_config.json")
    tokens = {name: _token(config[name]) for name in config if name.endswith("_token") and config[name]}
    sampling: dict[str, Any] = {}
    for name, kind in (("temperature", float), ("top_p", float), ("top_k", int)):
        if isinstance(generation.get(name), int | float):
            sampling[name] = kind(generation[name])
    if generation.get("do_sample") is False:
        sampling["temperature"] = 0.0
    templates = _templates(folder, config)
    return ChatCard(
        _name(folder),
        templates.get("default"),
        {k: v for k, v in tokens.items() if v},
        tool_template=templates.get("tool_use"),
        **sampling,
    )


def _name(folder: Path) -> str:
    """What people call the model: a folder's own name, or the hub's, whose folders are named after commits."""
    folder = folder.resolve()
    of_hub = folder.parent.parent.name
    if folder.parent.name == "snapshots" and of_hub.startswith("models--"):
        return of_hub.removeprefix("models--").replace("--", "/")
    return folder.name


def _templates(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """By name. Where there is one alone, it is the default. Newer files go before older ones."""
    said = config.get("chat_template")
    if isinstance(said, list):
        said = {one.get("name"): one.get("template") for one in said if isinstance(one, dict)}
    files = [("default", folder / "chat_template.jinja")]
    files += [(file.stem, file) for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))]
    found = {"default": _read(folder / "chat_template.json").get("chat_template")}
    found |= said if isinstance(said, dict) else {"default": said or found["default"]}
    for name, file in files:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found[name] = file.read_text(encoding="utf-8")
    return {name: text for name, text in found.items() if isinstance(name, str) and isinstance(text, str)}


def _token(said: Any) -> str:
    """A special token: its text, or an object that has it."""
    if isinstance(said, dict):
        said = said.get("content")
    return said if isinstance(said, str) else ""


def _read(file: Path) -> dict[str, Any]:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
