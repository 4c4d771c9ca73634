"""What clients ask for: the bodies of /v1/chat/completions and /v1/completions, checked field by field.

A parameter that this server does not follow is refused by its name, unless leaving it out would give the same.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from foredraft.edge.deadline import AT_DEADLINE, LOCAL, STOP
from foredraft.openai_api.errors import invalid
from foredraft.openai_api.fields import Fields, parse, strings
from foredraft.openai_api.formats import answer_format
from foredraft.protocol.messages import MAX_LOGPROBS
from foredraft.protocol.sampling import MAX_STOP_CHARACTERS, MAX_STOPS, SEED_BITS
from foredraft.text.constraint import Constraint

MAX_CHOICES: Final = 16
MAX_PROMPTS: Final = 64
DEFAULT_COMPLETION_TOKENS: Final = 16  # as OpenAI's
ROLES: Final = ("system", "developer", "user", "assistant", "tool")
# Bookkeeping of OpenAI's own: it changes no answer.
_BOOKKEEPING: Final = (
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
)

Prompt = str | list[int]


@dataclass(frozen=True, slots=True)
class Asked:
    """How to answer. None: as the model's makers say, or OpenAI's default; of ``max_tokens``, to the context's end."""

    model: str | None
    n: int
    stream: bool
    include_usage: bool
    continuous_usage: bool
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seed: int | None
    max_tokens: int | None
    stop: tuple[str, ...]
    policy: str | None
    deadline_s: float | None
    at_deadline: str
    logprobs: int | None
    ignore_eos: bool
    constraint: Constraint | None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to go on with, in the form that templates take.

    ``images``: the URLs of those in it, in their order, each with its name in the request.
    """

    asked: Asked
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    images: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """Prompts to go on from. ``echo``: the answer begins with its prompt."""

    asked: Asked
    prompts: list[Prompt]
    echo: bool


def chat_request(data: bytes) -> ChatRequest:
    """The body of /v1/chat/completions. Raises ApiError."""
    fields = Fields(parse(data))
    images: list[tuple[str, str]] = []
    messages = _messages(fields.take("messages", list), images)
    tools = _tools(fields.take("tools", list))
    choice = fields.any("tool_choice")
    if choice not in (None, "auto", "none"):
        raise invalid(
            f"tool_choice {choice!r} is not supported here: 'auto' or 'none'", "tool_choice", "unsupported_value"
        )
    logprobs = _chat_logprobs(fields)
    fields.only("modalities", ["text"])
    asked = _asked(fields, "max_completion_tokens", logprobs)
    if tools and asked.at_deadline == LOCAL:
        raise invalid("foredraft.at_deadline 'local' with tools: a draft calls none", "foredraft.at_deadline")
    return ChatRequest(asked, messages, [] if choice == "none" else tools, images)


def completion_request(data: bytes) -> CompletionRequest:
    """The body of /v1/completions. Raises ApiError."""
    fields = Fields(parse(data))
    prompts = _prompts(fields.any("prompt"))
    echo = bool(fields.take("echo", bool))
    fields.only("best_of", 1)
    logprobs = fields.integer("logprobs", 0, MAX_LOGPROBS)
    if echo and logprobs is not None:
        raise invalid("logprobs of a prompt are not supported here: leave out echo or logprobs", "echo")
    fields.only("suffix", "")
    asked = _asked(fields, None, logprobs)
    if asked.n * len(prompts) > MAX_PROMPTS:
        raise invalid(f"{len(prompts)} prompts with n = {asked.n}: at most {MAX_PROMPTS} texts at once", "prompt")
    return CompletionRequest(asked, prompts, echo)


def _chat_logprobs(fields: Fields) -> int | None:
    wanted, top = fields.take("logprobs", bool), fields.integer("top_logprobs", 0, MAX_LOGPROBS)
    if top and not wanted:
        raise invalid("top_logprobs needs logprobs", "top_logprobs")
    return (top or 0) if wanted else None


def _asked(fields: Fields, second_name: str | None, logprobs: int | None) -> Asked:
    """What both kinds of request have; nothing may be left after it."""
    stream = bool(fields.take("stream", bool))
    max_tokens = fields.integer("max_tokens", 1, 1 << 30)
    if second_name is not None:
        newer = fields.integer(second_name, 1, 1 << 30)
        if None not in (newer, max_tokens) and newer != max_tokens:
            raise invalid(f"max_tokens {max_tokens} and {second_name} {newer} contradict each other", "max_tokens")
        max_tokens = newer if newer is not None else max_tokens
    elif max_tokens is None:
        max_tokens = DEFAULT_COMPLETION_TOKENS
    stop = strings(fields.any("stop"), "stop", MAX_STOPS)
    if any(not 0 < len(text) <= MAX_STOP_CHARACTERS for text in stop):
        raise invalid(f"a stop string has 1 to {MAX_STOP_CHARACTERS} characters", "stop")
    policy, deadline_s, at_deadline = _ours(fields.any("foredraft"))
    include_usage, continuous_usage = _usage(fields, stream)
    asked = Asked(
        model=fields.take("model", str),
        n=fields.integer("n", 1, MAX_CHOICES) or 1,
        stream=stream,
        include_usage=include_usage,
        continuous_usage=continuous_usage,
        temperature=fields.number("temperature", 0.0, 100.0),
        top_p=fields.number("top_p", 1e-9, 1.0),
        top_k=fields.integer("top_k", -1, 1 << 30),
        seed=_seed(fields.take("seed", int)),
        max_tokens=max_tokens,
        stop=tuple(stop),
        policy=policy,
        deadline_s=deadline_s,
        at_deadline=at_deadline,
        logprobs=logprobs,
        ignore_eos=bool(fields.take("ignore_eos", bool)),
        constraint=answer_format(fields),
    )
    for name in ("presence_penalty", "frequency_penalty"):
        fields.only(name, 0, 0.0)
    fields.only("logit_bias", {})
    fields.only("store", False)
    fields.only("service_tier", "auto", "default")
    fields.only("parallel_tool_calls", True)
    fields.ignore(*_BOOKKEEPING)
    fields.end()
    return asked


def _usage(fields: Fields, stream: bool) -> tuple[bool, bool]:
    """Whether the usage is told at a stream's end, and, as vLLM can, in each event."""
    options = fields.take("stream_options", dict)
    if options is None:
        return False, False
    if not stream:
        raise invalid("stream_options needs stream", "stream_options")
    inner = Fields(options, "stream_options")
    include = bool(inner.take("include_usage", bool))
    continuous = bool(inner.take("continuous_usage_stats", bool))
    inner.ignore("include_obfuscation")
    inner.end()
    return include, continuous


def _seed(seed: int | None) -> int | None:
    """Any integer is a seed; ours are below 2**63."""
    return None if seed is None else seed % (1 << SEED_BITS)


def _ours(said: Any) -> tuple[str | None, float | None, str]:
    """The object ``foredraft``, what only this server knows: policy, deadline_s, at_deadline."""
    if said is None:
        return None, None, STOP
    fields = Fields(said, "foredraft")
    policy, deadline_s = fields.take("policy", str), fields.number("deadline_s", 0.001, 86_400.0)
    at_deadline = fields.take("at_deadline", str) or STOP
    if at_deadline not in AT_DEADLINE:
        ways = ", ".join(AT_DEADLINE)
        raise invalid(f"foredraft.at_deadline {at_deadline!r} is none of {ways}", "foredraft.at_deadline")
    fields.end()
    return policy, deadline_s, at_deadline


def _prompts(said: Any) -> list[Prompt]:
    if isinstance(said, str):
        return [said]
    if isinstance(said, list) and said:
        if all(isinstance(one, int) and not isinstance(one, bool) for one in said):
            return [_ids(said)]
        if len(said) > MAX_PROMPTS:
            raise invalid(f"{len(said)} prompts; at most {MAX_PROMPTS}", "prompt")
        if all(isinstance(one, str) for one in said):
            return list(said)
        if all(isinstance(one, list) and one and all(type(token) is int for token in one) for one in said):
            return [_ids(one) for one in said]
    raise invalid("prompt must be a string, a list of strings, token ids, or a list of lists of token ids", "prompt")


def _ids(tokens: list[int]) -> list[int]:
    if min(tokens) < 0:
        raise invalid(f"token id {min(tokens)} in prompt is negative", "prompt")
    return tokens


def _messages(said: list[Any] | None, images: list[tuple[str, str]]) -> list[dict[str, Any]]:
    if not said:
        raise invalid("messages must be a list with at least one message", "messages")
    return [_message(one, f"messages[{place}]", images) for place, one in enumerate(said)]


def _message(said: Any, where: str, images: list[tuple[str, str]]) -> dict[str, Any]:
    fields = Fields(said, where)
    role = fields.take("role", str)
    if role not in ROLES:
        raise invalid(f"{where}.role must be one of {', '.join(ROLES)}, not {role!r}", f"{where}.role")
    message: dict[str, Any] = {"role": "system" if role == "developer" else role}
    calls = _calls(fields.take("tool_calls", list), where) if role == "assistant" else []
    content = _content(fields.any("content"), f"{where}.content", images if role == "user" else None)
    if content is None and not calls:
        raise invalid(f"{where}.content is missing", f"{where}.content")
    message["content"] = content or ""
    if calls:
        message["tool_calls"] = calls
    for name in ("name", "tool_call_id"):
        if (value := fields.take(name, str)) is not None:
            message[name] = value
    fields.ignore("refusal", "annotations")  # what answers bring along, sent back
    fields.end()
    return message


def _content(said: Any, where: str, images: list[tuple[str, str]] | None) -> str | list[dict[str, Any]] | None:
    """A text, or parts of which each is one; with images among them, the parts. ``images`` grows by those."""
    if said is None or isinstance(said, str):
        return said
    if not isinstance(said, list):
        raise invalid(f"{where} must be a string or a list of parts", where)
    parts: list[dict[str, Any]] = []
    for place, part in enumerate(said):
        fields = Fields(part, f"{where}[{place}]")
        kind = fields.take("type", str)
        if kind == "text":
            parts.append({"type": "text", "text": fields.take("text", str) or ""})
        elif kind == "image_url" and images is not None:
            images.append(_image_url(fields))
            parts.append({"type": "image"})
        else:
            taken = "text" if images is None else "text and images (image_url)"
            said_type = f"{where}[{place}] is of type {kind!r}; taken are {taken}"
            raise invalid(said_type, f"{where}[{place}].type")
        fields.ignore("annotations", "cache_control")
        fields.end()
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _image_url(fields: Fields) -> tuple[str, str]:
    """An image's URL, and its name in the request."""
    where = fields.path("image_url")
    inner = Fields(fields.any("image_url"), where)
    url = inner.take("url", str)
    if not url:
        raise invalid(f"{where}.url is missing", f"{where}.url")
    inner.ignore("detail")  # the model's own processor decides
    inner.end()
    return url, f"{where}.url"


def _calls(said: list[Any] | None, where: str) -> list[dict[str, Any]]:
    """An assistant's earlier tool calls; templates want the arguments as an object."""
    calls = []
    for place, one in enumerate(said or []):
        fields = Fields(one, f"{where}.tool_calls[{place}]")
        function = Fields(fields.take("function", dict) or {}, fields.path("function"))
        name, arguments = function.take("name", str), function.take("arguments", str) or "{}"
        if not name:
            raise invalid(f"{function.path('name')} is missing", function.path("name"))
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            parsed = arguments
        calls.append(
            {"id": fields.take("id", str), "type": "function", "function": {"name": name, "arguments": parsed}}
        )
        function.end()
        fields.ignore("type", "index")
        fields.end()
    return calls


def _tools(said: Sequence[Any] | None) -> list[dict[str, Any]]:
    """Functions that the model may call, as templates take them."""
    tools = []
    for place, one in enumerate(said or []):
        where = f"tools[{place}]"
        fields = Fields(one, where)
        if fields.any("type") != "function":
            raise invalid(f"{where}.type must be 'function'", f"{where}.type")
        function = fields.take("function", dict)
        if function is None or not isinstance(function.get("name"), str):
            raise invalid(f"{where}.function must be an object with a name", f"{where}.function")
        if function.get("strict"):
            raise invalid(
                f"{where}.function.strict is not supported here: nothing holds the model to the schema",
                f"{where}.function.strict",
                "unsupported_value",
            )
        fields.end()
        tools.append({"type": "function", "function": function})
    return tools
