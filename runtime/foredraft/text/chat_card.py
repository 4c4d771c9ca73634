"""What whoever talks with a model must know beside its tokens: its chat template, and how its makers sample from it."""

import json
from pathlib import Path
from typing import Any

import msgspec

from foredraft.errors import ProtocolError

MAX_CARD_BYTES = 4 << 20


class ChatCard(msgspec.Struct, frozen=True):
    """A model as its folder describes it. ``template``: Jinja, or None where the model has no chat.

    ``template_tokens``: the special tokens that templates name, like bos_token. The sampling is that of
    generation_config.json; None where that says nothing.
    """

    name: str = ""
    template: str | None = None
    template_tokens: dict[str, str] = {}
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None

    def to_json(self) -> bytes:
        """As it travels."""
        return msgspec.json.encode(self)


def parse_chat_card(data: bytes) -> ChatCard:
    """The card in ``data``. Raises ProtocolError for anything else."""
    try:
        return msgspec.json.decode(data, type=ChatCard)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ProtocolError(f"not a description of a chat model: {error}") from error


def read_chat_card(folder: Path) -> ChatCard:
    """The card of the model in ``folder``, as far as its files say something."""
    config, generation = _read(folder / "tokenizer_config.json"), _read(folder / "generation_config.json")
    tokens = {name: _token(config[name]) for name in config if name.endswith("_token") and config[name]}
    sampling: dict[str, Any] = {}
    for name, kind in (("temperature", float), ("top_p", float), ("top_k", int)):
        if isinstance(generation.get(name), int | float):
            sampling[name] = kind(generation[name])
    return ChatCard(folder.name, _template(folder, config), {k: v for k, v in tokens.items() if v}, **sampling)


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    """chat_template.jinja, or what tokenizer_config.json says: one template, or several of which one is the default."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        pass
    said = config.get("chat_template")
    if isinstance(said, list):
        named = {one.get("name"): one.get("template") for one in said if isinstance(one, dict)}
        said = named.get("default")
    return said if isinstance(said, str) else None


def _token(said: Any) -> str:
    """A special token: its text, or an object that has it."""
    if isinstance(said, dict):
        said = said.get("content")
    return said if isinstance(said, str) else ""


def _read(file: Path) -> dict[str, Any]:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
