"""Chat templates: a conversation becomes the text that a model was trained on.

The template is the model's own, a program in Jinja from somebody else. It runs in Jinja's sandbox, which keeps it from
Python's innards, and in a process of its own, which bounds its time and memory. Templates may call what transformers
gives them.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from foredraft.errors import ConfigError, needs
from foredraft.text.chat_card import ChatCard
from foredraft.text.confined import Confined, OutOfBoundsError

MAX_RENDER_S: Final = 5.0
MAX_MEMORY_BYTES: Final = 512 << 20
"""Of the process in which it runs, Python and Jinja included."""

_program = Confined("foredraft.text.template_program", MAX_RENDER_S, MAX_MEMORY_BYTES)


def check_template(card: ChatCard) -> None:
    """Raise ConfigError where the model has no template that could be run, MissingExtraError without Jinja."""
    _ask({"template": _template(card, None)})


def render(card: ChatCard, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None = None) -> str:
    """The prompt for the assistant's answer to ``messages``. Raises ConfigError, MissingExtraError."""
    given = {"messages": list(messages), "tools": list(tools) if tools else None, "tokens": card.template_tokens}
    return _ask({"template": _template(card, tools)} | given)


def _template(card: ChatCard, tools: Sequence[dict[str, Any]] | None) -> str:
    needs("jinja2")
    written = card.tool_template if tools and card.tool_template is not None else card.template
    if written is None:
        raise ConfigError(f"the model {card.name!r} has no chat template; give it a prompt of your own to go on from")
    return written


def _ask(question: dict[str, Any]) -> str:
    try:
        said = json.loads(_program.ask(json.dumps(question).encode()))
    except OutOfBoundsError as error:
        raise ConfigError(f"the model's chat template {error}") from error
    if "error" in said:
        raise ConfigError(f"the model's chat template {said['error']}")
    text: str = said["text"]
    return text
