"""What decides the text: sampling parameters and stop rules."""

import math
from dataclasses import dataclass
from typing import Final

from foredraft.errors import ConfigError

SEED_BITS = 63

NOISE: Final = "noise"
"""Drafts are accepted where they equal what the target samples with the noise that both ends know."""
REJECTION: Final = "rejection"
"""Drafts are accepted by rejection sampling."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the target turns logits into a token.

    ``temperature`` 0 is greedy. ``top_k`` 0 and ``top_p`` 1 keep every token. ``seed`` keys
    the noise of each position (see ``engines.noise``), so the text is a function of the
    model, the prompt and these four numbers alone.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and 0.0 <= self.temperature <= 100.0):
            raise ConfigError(f"temperature must be between 0 and 100, not {self.temperature!r}")
        if self.top_k < 0:
            raise ConfigError(f"top_k must be 0 (off) or more, not {self.top_k!r}")
        if not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"top_p must be above 0 and at most 1, not {self.top_p!r}")
        if not 0 <= self.seed < 2**SEED_BITS:
            raise ConfigError(f"seed must be between 0 and 2**{SEED_BITS}-1, not {self.seed!r}")


MAX_STOPS = 64
MAX_STOP_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class StopRules:
    """When the text ends: after ``max_new_tokens``, at a stop token, or at a stop string."""

    max_new_tokens: int = 128
    tokens: tuple[int, ...] = ()
    strings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens must be 1 or more, not {self.max_new_tokens!r}")
        if any(not text for text in self.strings):
            raise ConfigError("a stop string must not be empty")
        if max(len(self.tokens), len(self.strings)) > MAX_STOPS:  # each is compared with each new token
            raise ConfigError(f"at most {MAX_STOPS} stop tokens and {MAX_STOPS} stop strings, please")
        if any(len(text) > MAX_STOP_CHARACTERS for text in self.strings):
            raise ConfigError(f"a stop string may have {MAX_STOP_CHARACTERS} characters at most")
