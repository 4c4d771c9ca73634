"""Chat templates: a conversation becomes the text that a model was trained on.

The template is the model's own, a program in Jinja from somebody else: it runs in Jinja's sandbox, which keeps it from
Python's innards, and what it raises is the conversation's error. Templates may call what transformers gives them.
"""

import json
from collections.abc import Sequence, Sized
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from foredraft.errors import ConfigError, extras_named
from foredraft.text.chat_card import ChatCard
from foredraft.text.time_limit import OutOfTimeError, within

if TYPE_CHECKING:
    from jinja2 import Template

MAX_RENDERED = 8 << 20
"""Characters that a template may write, and that it may make at once by repeating something."""

MAX_RENDER_S = 5.0
"""How long it may take."""

_MOST_POWER = 64


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
    except (TemplateError, RecursionError, SyntaxError, ValueError, MemoryError) as error:  # of Python's compiler, too
        raise ConfigError(f"the model's chat template cannot be read: {error}") from error


@extras_named()
def render(card: ChatCard, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] | None = None) -> str:
    """The prompt for the assistant's answer to ``messages``. Raises ConfigError, MissingExtraError."""
    from jinja2 import TemplateError

    template = _template(card, tools)
    given = {"messages": list(messages), "tools": tools or None, "add_generation_prompt": True}

    def write() -> str:
        pieces, length = [], 0
        for piece in template.generate(given, **card.template_tokens):
            length += len(piece)
            if length > MAX_RENDERED:
                raise ConfigError(f"the chat template writes more than {MAX_RENDERED} characters")
            pieces.append(piece)
        return "".join(pieces)

    try:
        return within(MAX_RENDER_S, write)
    except OutOfTimeError as error:
        raise ConfigError(f"the model's chat template takes more than {MAX_RENDER_S:g} s") from error
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"the model's chat template does not take this conversation: {error}") from error
    except MemoryError as error:
        raise ConfigError("the model's chat template takes more memory than there is") from error


@lru_cache(maxsize=8)
def _compiled(template: str) -> "Template":
    from jinja2 import TemplateRuntimeError
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

    class Sandbox(ImmutableSandboxedEnvironment):
        """In which nothing is repeated into gigabytes, and no number has as many digits."""

        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            for one, other in ((left, right), (right, left)):
                if isinstance(one, Sized) and isinstance(other, int) and len(one) * other > MAX_RENDERED:
                    raise TemplateRuntimeError(f"{len(one)} characters or items {other} times are too many")
            if operator == "**" and isinstance(right, int | float) and abs(right) > _MOST_POWER:
                raise TemplateRuntimeError(f"a power of {right} is too large")
            return super().call_binop(context, operator, left, right)

    jinja = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
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
