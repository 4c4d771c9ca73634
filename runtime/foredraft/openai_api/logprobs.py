"""Log-probabilities in OpenAI's two forms. They are the target's, before temperature and filters."""

from collections.abc import Sequence
from typing import Any

from foredraft.edge.state import Scored
from foredraft.text.tokenizer import Tokenizer

_BROKEN = "\N{REPLACEMENT CHARACTER}"


def of_chat(tokenizer: Tokenizer, scored: Sequence[Scored]) -> dict[str, Any]:
    """That of a chat's choice: an entry per token, with the most probable ones."""
    content = []
    for own, *best in scored:
        content.append(_entry(tokenizer, *own) | {"top_logprobs": [_entry(tokenizer, *one) for one in best]})
    return {"content": content, "refusal": None}


def of_completion(tokenizer: Tokenizer, scored: Sequence[Scored], offset: int) -> dict[str, Any]:
    """That of a completion's choice: lists side by side. ``offset``: characters of the text before."""
    said: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for (token, logprob), *best in scored:
        text = _text(tokenizer, token)
        said["tokens"].append(text)
        said["token_logprobs"].append(logprob)
        said["top_logprobs"].append({_text(tokenizer, one): value for one, value in best})
        said["text_offset"].append(offset)
        offset += len(text)
    return said


def _entry(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    text = _text(tokenizer, token)
    return {"token": text, "logprob": logprob, "bytes": None if _BROKEN in text else list(text.encode())}


def _text(tokenizer: Tokenizer, token: int) -> str:
    """A token by itself; a part of a character has no text of its own."""
    return tokenizer.special_text(token) or tokenizer.decode([token])
