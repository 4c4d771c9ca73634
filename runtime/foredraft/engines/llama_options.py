"""How llama.cpp runs a draft, here or in its server: ``--draft-option NAME=VALUE``."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeVar

from foredraft.errors import ConfigError, UnknownNameError

CACHE_TYPES: Final = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8}
"""Types of the cache, as ggml numbers them."""

_FLASH: Final = {"auto": -1, "off": 0, "on": 1}
_LEAST: Final = {
    **{"context": 16, "batch": 16, "branches": 1, "threads": 0, "batch_threads": 0, "gpu_layers": -1},
    **{"candidates": 1, "nodes": 1},
}
_MOST: Final = {"branches": 255, "candidates": 1 << 16, "nodes": 64}


@dataclass(frozen=True, slots=True)
class LlamaOptions:
    """``context``: the longest text in tokens, if the model's own is not shorter; its cache is allocated at once.

    ``threads`` for steps and ``batch_threads`` for prompts: 0 takes the machine's cores, up to eight, and those of
    steps. ``gpu_layers``: layers on the GPU, -1 for all. ``flash_attention``: -1 where it can be, 0 never, 1 always.
    ``cache_type``: f16, f32, q8_0 or q4_0. ``batch``: tokens in one decode. ``branches``: of the draft tree in the
    cache.
    """

    context: int = 2048
    threads: int = 0
    batch_threads: int = 0
    gpu_layers: int = 0
    flash_attention: int = -1
    cache_type: str = "f16"
    batch: int = 256
    branches: int = 64


@dataclass(frozen=True, slots=True)
class LlamaServerOptions:
    """``candidates``: the most probable tokens that a server tells of, where noise decides among them.

    ``nodes``: of the draft tree in one step, each a request and a slot of the server.
    """

    candidates: int = 40
    nodes: int = 1


Options = TypeVar("Options", LlamaOptions, LlamaServerOptions)


def changed(options: Options, given: Sequence[str]) -> Options:
    """The options with ``NAME=VALUE``, several of them, in the place of what is there. Raises ConfigError."""
    known = [field.name for field in fields(options)]
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise ConfigError(f"--draft-option {one!r} is no NAME=VALUE, such as {known[0]}=2048")
        name = name.strip().replace("-", "_")
        if name not in known:
            raise UnknownNameError("draft option", name, known)
        changes: dict[str, Any] = {name: _value(name, value.strip())}
        options = replace(options, **changes)
    return options


def _value(name: str, value: str) -> str | int:
    choices = {"cache_type": tuple(CACHE_TYPES), "flash_attention": tuple(_FLASH)}.get(name)
    if choices is not None:
        if value not in choices:
            raise UnknownNameError(f"value of the draft option {name}", value, choices)
        return value if name == "cache_type" else _FLASH[value]
    least, most = _LEAST[name], _MOST.get(name, 1 << 24)
    try:
        number = int(value)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise ConfigError(f"--draft-option {name}={value}: a whole number from {least} to {most}, please")
    return number
