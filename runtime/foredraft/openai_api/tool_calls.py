"""Tool calls in an answer, in the common form of Hermes and Qwen.

That is ``<tool_call>{"name": ..., "arguments": ...}</tool_call>``. What is not in that form is left as text.
"""

import json
import secrets
from typing import Any

OPENING, CLOSING = "<tool_call>", "</tool_call>"


class ToolCallReader:
    """Takes an answer apart as it comes: ``feed`` gives the text to show, ``finish`` the rest of it and the calls."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """Text that belongs to no tool call, for certain."""
        self._held += text
        start = self._held.find(OPENING)
        if start < 0:
            start = len(self._held) - _begun(self._held)
        shown, self._held = self._held[:start], self._held[start:]
        return shown

    def finish(self) -> tuple[str, list[dict[str, Any]]]:
        """The text that is left, and the calls."""
        text, calls = "", []
        rest = self._held
        while rest:
            before, opening, after = rest.partition(OPENING)
            inside, closing, rest = after.partition(CLOSING)
            call = _call(inside) if opening else None
            if call is None:
                text += before + opening + inside + closing
            else:
                text += before
                calls.append(call)
        self._held = ""
        return (text.rstrip() if calls else text), calls


def _begun(text: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of a call."""
    return next((n for n in range(min(len(OPENING) - 1, len(text)), 0, -1) if OPENING.startswith(text[-n:])), 0)


def _call(inside: str) -> dict[str, Any] | None:
    """The call in OpenAI's form; None if it is none."""
    try:
        said = json.loads(inside)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or not isinstance(said.get("name"), str):
        return None
    arguments = said.get("arguments", said.get("parameters", {}))
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    function = {"name": said["name"], "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
