"""Chat templates: a conversation becomes the text that a model was trained on.

The template is the model's own, a program in Jinja from somebody else: it runs in Jinja's sandbox, which keeps it from
Python's innards, and what it raises is the conversation's error. Templates may call what transformers gives them.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from foredraft.errors import ConfigError, extras_named
from foredraft.text.chat_card import ChatCard

if TYPE_CHECKING:
    from jinja2 import Template

MAX_RENDERED = 8 << 20
"""Characters that a template may write."""


@extras_named()
def check_template(card: ChatCard) -> None:
    """Raise ConfigError where the model has no template that could be run, MissingExtraError without Jinja."""
    _template(card, None)


def _template(card: ChatCard, tools: Sequence[dict[str, Any]] | None) -> "Template":
    from jinja2 import TemplateError

    written = card.tool_template if tools and card.tool_template is not None else card.template
    if written is None:
        raise ConfigError(f"the model {card.name!r} has no chat template; give it a prompt of your own to go on from")
    try:
        return _compiled(written)
    except (TemplateError, RecursionError) as error:
        raise ConfigError(f"the model's chat template cannot be read: {error}") from error


@extras_named()
def render(card: ChatCard, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None = None) -> str:
    """The prompt for the assistant's answer to ``messages``. Raises ConfigError, MissingExtraError."""
    from jinja2 import TemplateError

    template = _template(card, tools)
    try:
        pieces, length = [], 0
        for piece in template.generate(
            messages=list(messages), tools=tools or None, add_generation_prompt=True, **card.template_tokens
        ):
            length += len(piece)
            if length > MAX_RENDERED:
                raise ConfigError(f"the chat template writes more than {MAX_RENDERED} characters")
            pieces.append(piece)
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"the model's chat template does not take this conversation: {error}") from error
    return "".join(pieces)


@lru_cache(maxsize=8)
def _compiled(template: str) -> "Template":
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import Node
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The block that marks what the assistant says, for training: its inside is all that counts here."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser: Parser) -> list[Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
    jinja.filters["tojson"] = _to_json
    jinja.globals["raise_exception"] = _raise
    jinja.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return jinja.from_string(template)


def _raise(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As JSON for models, with the options that transformers gives: Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
