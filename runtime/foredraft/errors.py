"""Every error that Foredraft raises on purpose.

    ForedraftError
    ├── ConfigError            what the user asked for cannot be done as asked (exit code 2)
    │   ├── MissingExtraError  needs packages that are not installed; names the extra that brings them
    │   ├── GrammarError       a constraint that cannot be followed
    │   ├── ImageError         an image that is broken, too large, or of a kind that is not read
    │   ├── UnknownNameError   no such policy, profile, model ...; names the nearest
    │   ├── ProfileError       a hardware profile that is malformed or does not fit
    │   ├── EstimatesError     estimates that are none: a file that cannot be read, wrong figures
    │   └── RecordError        a record that cannot be read, or not be replayed as asked
    ├── ModelError             a model, its exits or its tokenizer cannot be used
    ├── LinkError              the way to the other machine
    │   ├── LinkClosedError    it was closed or cut; a session reconnects
    │   └── UnreachableError   retries are used up
    ├── ProtocolError          bytes or messages that break the protocol
    └── RefusedError           the other side said no, and why

Libraries' exceptions are translated at the border: no aiohttp or torch exception leaves
the module that talks to that library.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

EXTRA_OF: Final = {
    **dict.fromkeys(("torch", "transformers", "safetensors", "numpy"), "torch"),
    **dict.fromkeys(("llama_cpp",), "gguf"),
    **dict.fromkeys(("gguf",), "gguf-target"),
    **dict.fromkeys(("torchao", "accelerate"), "quantization"),
    **dict.fromkeys(("matplotlib",), "pictures"),
    **dict.fromkeys(("optuna", "sqlalchemy"), "tune"),
    **dict.fromkeys(("psycopg",), "postgres"),
    **dict.fromkeys(("distributed",), "dask"),
    **dict.fromkeys(("jinja2",), "openai"),
    **dict.fromkeys(("llguidance",), "grammar"),
    **dict.fromkeys(("PIL",), "images"),
    **dict.fromkeys(("opentelemetry",), "otel"),
}
"""Which extra of Foredraft brings a package: pip install 'foredraft[EXTRA]'."""


class ForedraftError(Exception):
    """Base of all errors raised on purpose; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class ConfigError(ForedraftError):
    """The request itself is wrong. The message names the thing, the value and the way out."""

    exit_code = 2


class MissingExtraError(ConfigError):
    """Needs a package that an extra of Foredraft brings, and that is not installed."""

    def __init__(self, package: str, extra: str = "") -> None:
        extra = extra or EXTRA_OF[package]
        super().__init__(f"this needs {package}, which is not installed: pip install 'foredraft[{extra}]'")


@contextmanager
def extras_named() -> Iterator[None]:
    """Within it, a package that is missing is a MissingExtraError, if an extra brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_OF:
            raise
        raise MissingExtraError(package) from error


def needs(*packages: str, extra: str = "") -> None:
    """Raise MissingExtraError for the first of these packages that is not installed, before work that needs it.

    ``extra``: the one to name, where several bring the package.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtraError(package, extra)


class GrammarError(ConfigError):
    """A constraint that cannot be followed, or a text that does not keep to it."""


class ImageError(ConfigError):
    """An image that is broken, too large, or of a kind that is not read."""


class UnknownNameError(ConfigError):
    """A name that nothing answers to."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        near = difflib.get_close_matches(name, self.known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}: {hint}known: {', '.join(self.known)}")


class ProfileError(ConfigError):
    """A hardware profile that is malformed, or that does not fit what it is used for."""


class EstimatesError(ConfigError):
    """A file of estimates that is malformed or cannot be read, or figures that cannot be."""


class RecordError(ConfigError):
    """A record that is none, is damaged, or does not hold what it is used for."""


class ModelError(ForedraftError):
    """A model, its exits or its tokenizer cannot be used."""


class LinkError(ForedraftError):
    """The way to the other machine does not work."""


class LinkClosedError(LinkError):
    """The link was closed or cut. A session reconnects and resumes."""


class UnreachableError(LinkError):
    """The other machine could not be reached, retries included."""


class DeadlineError(ForedraftError):
    """A text was not complete at its deadline. What was committed by then stays valid."""


class ProtocolError(ForedraftError):
    """Bytes or messages that break the protocol."""


class RefusedError(ForedraftError):
    """The other side refused.

    ``code`` is one of the codes in ``protocol.messages``; ``retry_after_s`` is None where a
    retry cannot help.
    """

    def __init__(self, code: str, reason: str, retry_after_s: float | None = None) -> None:
        self.code, self.reason, self.retry_after_s = code, reason, retry_after_s
        way_out = "" if retry_after_s is None else f" (retry in {retry_after_s:g} s)"
        super().__init__(f"{reason}{way_out}")
