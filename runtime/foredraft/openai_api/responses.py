"""Answers in OpenAI's form: whole bodies, and the chunks of a stream."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from foredraft.edge.session_report import SessionReport
from foredraft.edge.state import Scored
from foredraft.openai_api.choices import Choice, Delta
from foredraft.openai_api.logprobs import of_chat, of_completion
from foredraft.text.tokenizer import Tokenizer

DONE = b"data: [DONE]\n\n"


class Answer:
    """One answer, of a chat or of a completion: the deltas of its choices, put together or one by one."""

    def __init__(self, model: str, chat: bool, scoring: Tokenizer | None = None) -> None:
        """``scoring``: where log-probabilities were asked for, the tokenizer that says what their tokens are."""
        self._chat = chat
        self._scoring = scoring
        self._offsets: dict[int, int] = {}  # by choice: characters of the tokens that were told
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def chunk(self, delta: Delta, *, first: bool) -> dict[str, Any]:
        """One event of a stream. ``first``: of its choice."""
        scored = self._logprobs(delta.choice, delta.logprobs)
        choice: dict[str, Any] = {"index": delta.choice, "logprobs": scored, "finish_reason": delta.finish}
        if self._chat:
            said: dict[str, Any] = {"role": "assistant"} if first else {}
            if delta.text or (first and not delta.calls):
                said["content"] = delta.text
            if delta.calls:
                said["tool_calls"] = [{"index": place} | call for place, call in enumerate(delta.calls)]
            choice["delta"] = said
        else:
            choice["text"] = delta.text
        return self._head | {"object": self._kind(".chunk"), "choices": [choice]}

    def last_chunk(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The event with what it took, after all choices."""
        return self._head | {"object": self._kind(".chunk"), "choices": []} | _taken(choices)

    def body(self, choices: Sequence[Choice], deltas: Sequence[Delta]) -> dict[str, Any]:
        """The whole answer at once."""
        said = [self._choice(choice, [one for one in deltas if one.choice == choice.index]) for choice in choices]
        return self._head | {"object": self._kind(""), "choices": said} | _taken(choices)

    def _choice(self, choice: Choice, deltas: Sequence[Delta]) -> dict[str, Any]:
        text = "".join(delta.text for delta in deltas)
        calls = [call for delta in deltas for call in delta.calls]
        scored = self._logprobs(choice.index, [one for delta in deltas for one in delta.logprobs])
        whole: dict[str, Any] = {"index": choice.index, "logprobs": scored, "finish_reason": deltas[-1].finish}
        if not self._chat:
            return whole | {"text": text}
        message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
        if calls:
            message["tool_calls"] = calls
        return whole | {"message": message}

    def _logprobs(self, choice: int, scored: Sequence[Scored]) -> dict[str, Any] | None:
        if self._scoring is None or not scored:
            return None
        if self._chat:
            return of_chat(self._scoring, scored)
        told = of_completion(self._scoring, scored, self._offsets.get(choice, 0))
        self._offsets[choice] = told["text_offset"][-1] + len(told["tokens"][-1])
        return told

    def _kind(self, chunk: str) -> str:
        return f"chat.completion{chunk}" if self._chat else "text_completion"


def usage(choices: Sequence[Choice]) -> dict[str, int]:
    """Tokens so far, in OpenAI's form."""
    prompts = {id(choice.prompt): choice.prompt_tokens for choice in choices}  # one that several answer counts once
    given, new = sum(prompts.values()), sum(choice.tokens for choice in choices)
    return {"prompt_tokens": given, "completion_tokens": new, "total_tokens": given + new}


def _taken(choices: Sequence[Choice]) -> dict[str, Any]:
    """OpenAI's ``usage``, and ``foredraft``: what the texts took beyond tokens."""
    reports = [choice.report for choice in choices if choice.report is not None]
    unverified = sum(choice.unverified_tokens for choice in choices)
    return {
        "usage": usage(choices),
        "foredraft": _figures(reports) | ({"unverified_tokens": unverified} if unverified else {}),
    }


def _figures(reports: Sequence[SessionReport]) -> dict[str, Any]:
    def total(name: str) -> int:
        return sum(getattr(report, name) for report in reports)

    passes, drafted = total("passes"), total("drafted")
    return {
        "policy": reports[0].policy if reports else None,
        "seeds": [report.seed for report in reports],
        "tokens_per_pass": round(total("new_tokens") / passes, 3) if passes else 0.0,
        "acceptance": round(total("accepted") / drafted, 3) if drafted else None,
        "hints": total("hints"),
        "hints_right": total("hints_right"),
        "bytes_up": total("bytes_up"),
        "bytes_down": total("bytes_down"),
        "reconnects": total("reconnects"),
    }
