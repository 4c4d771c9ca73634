"""The program in which chat templates run: Jinja's sandbox, in a process that ``confined`` bounds.

A question and its answer are JSON. ``{"template": ..., "messages": ..., "tools": ..., "tokens": ...}`` is answered by
``{"text": ...}`` or ``{"error": ...}``; without ``messages`` the template is read alone.
"""

import json
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NoReturn

from jinja2 import Template, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from foredraft.text.confined import serve

MAX_RENDERED: Final = 8 << 20
"""Characters that a template may write."""


def answer(question: bytes) -> bytes:
    """The answer to one question."""
    return json.dumps(_answer(json.loads(question)), ensure_ascii=False).encode(errors="surrogatepass")


def _answer(asked: dict[str, Any]) -> dict[str, str]:
    try:
        template = _compiled(asked["template"])
    except (TemplateError, RecursionError, SyntaxError, ValueError, MemoryError) as error:
        return {"error": f"cannot be read: {_said(error)}"}
    if "messages" not in asked:
        return {"text": ""}
    given = {"messages": asked["messages"], "tools": asked["tools"], "add_generation_prompt": True}
    try:
        text = _written(template, given | asked["tokens"])
    except Exception as error:  # the template's own code raises whatever it likes
        return {"error": f"does not take this conversation: {_said(error)}"}
    return {"error": f"writes more than {MAX_RENDERED} characters"} if text is None else {"text": text}


def _said(error: Exception) -> str:
    return "it takes more memory than it may" if isinstance(error, MemoryError) else f"{error}"[:1000]


def _written(template: Template, given: dict[str, Any]) -> str | None:
    pieces, length = [], 0
    for piece in template.generate(given):
        length += len(piece)
        if length > MAX_RENDERED:
            return None
        pieces.append(piece)
    return "".join(pieces)


class _Generation(Extension):
    """The block that marks what the assistant says, for training: its inside is all that counts here."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
    jinja.filters["tojson"] = _to_json
    jinja.globals["raise_exception"] = _raise
    jinja.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return jinja.from_string(template)


def _raise(message: str) -> NoReturn:
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


if __name__ == "__main__":
    serve(answer)
