"""llama.cpp's own HTTP server, ``llama-server``: what it says of itself, and what its model predicts.

For whoever runs it with the build for their device, such as CUDA on a Jetson. It is met once, when the draft is
loaded, by requests that block; predictions are asked for on the event loop (``llama_server_draft``).
"""

import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from foredraft.errors import ConfigError, ModelError
from foredraft.text.tokenizer import Tokenizer
from foredraft.text.vocabulary import check_pieces

PROMPT_S: Final = 120.0
"""How long an answer may take: a slow device may have to read a long prompt first."""

_CONNECT_S: Final = 10.0
_LARGEST_VOCABULARY: Final = 1 << 21
_TOLD: Final = 120  # letters of what a server says, in a message

_Said = TypeVar("_Said")


class Candidate(msgspec.Struct, frozen=True):
    """A token that may come next. ``bytes``: what it stands for; none for most special tokens."""

    id: int
    logprob: float
    bytes: list[int] = []


class _Predicted(msgspec.Struct, frozen=True):
    top_logprobs: list[Candidate]


class _Completion(msgspec.Struct, frozen=True):
    completion_probabilities: list[_Predicted]


class _Settings(msgspec.Struct, frozen=True):
    n_ctx: int


class _Properties(msgspec.Struct, frozen=True):
    default_generation_settings: _Settings
    build_info: str
    model_path: str = ""


class _Error(msgspec.Struct, frozen=True):
    message: str


class _Refusal(msgspec.Struct, frozen=True):
    error: _Error


class LlamaServer:
    """A server at ``url``. ``context``: the longest text, in tokens. ``vocab_size``: its model's, with padding."""

    def __init__(self, url: str) -> None:
        """Meet it; takes a moment. Raises ConfigError for no URL, ModelError for what is no llama-server."""
        self.url = url.rstrip("/")
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{url!r} is no URL of a llama-server; write llama-server:http://127.0.0.1:8080")
        self._decoder = msgspec.json.Decoder(_Completion)
        properties = self._understood(self._now("/props", None), msgspec.json.Decoder(_Properties))
        self.model = properties.model_path
        self.context = properties.default_generation_settings.n_ctx
        everything = self.candidates(self._now("/completion", self.question([0], _LARGEST_VOCABULARY)))
        self._pieces = {one.id: bytes(one.bytes) for one in everything}
        self.vocab_size = max(self._pieces) + 1
        self.spoken = self.vocab_size  # what lies beyond is padding
        self.tokenizer_digest = ""  # known once the vocabulary has been compared with a tokenizer's

    def speak(self, tokenizer: Tokenizer) -> None:
        """Draft for a target with this tokenizer. Raises ModelError, naming what differs, where it is another."""
        mine = [self._pieces.get(token, b"") for token in range(self.vocab_size)]
        check_pieces(mine, tokenizer, f"llama-server:{self.url}")
        self.spoken = min(self.vocab_size, tokenizer.vocab_size)
        self.tokenizer_digest = tokenizer.digest

    def question(self, tokens: Sequence[int], candidates: int) -> bytes:
        """The body of a request for what may follow ``tokens``."""
        wanted = {"n_predict": 1, "n_probs": candidates, "cache_prompt": True}
        return msgspec.json.encode({"prompt": tokens, **wanted, "temperature": 0, "samplers": ["top_k"], "top_k": 1})

    def candidates(self, body: bytes) -> list[Candidate]:
        """The most probable ones, best first, of an answer. Raises ModelError for what is none."""
        predicted = self._understood(body, self._decoder).completion_probabilities
        if not predicted or not predicted[0].top_logprobs:
            raise self.failed("predicted nothing; is it another version?")
        return predicted[0].top_logprobs

    def refused(self, status: int, body: bytes) -> ModelError:
        """The error of an answer that is no success."""
        if status == http.client.UNAUTHORIZED:
            return self.failed("wants an API key, and none is sent: run it on this machine, without --api-key")
        try:
            said = msgspec.json.decode(body, type=_Refusal).error.message
        except msgspec.MsgspecError:
            said = body.decode(errors="replace")
        return self.failed(f"answered {status}: {said[:_TOLD]!r}")

    def failed(self, what: str) -> ModelError:
        """An error that names the server."""
        return ModelError(f"the llama-server at {self.url} {what}")

    def unreachable(self, error: BaseException) -> ModelError:
        """The error of a request that got no answer."""
        reason = str(error) or type(error).__name__
        return self.failed(f"does not answer ({reason}); is it running? Without one, use the draft 'ngram'")

    def _understood(self, body: bytes, decoder: "msgspec.json.Decoder[_Said]") -> _Said:
        try:
            return decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise self.failed(
                f"answered something else than a llama-server of 2025 or later does ({error}); "
                "is it another program, or an older version?"
            ) from error

    def _now(self, path: str, body: bytes | None) -> bytes:
        """What it answers, waited for."""
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=_CONNECT_S if body is None else PROMPT_S) as answer:
                said: bytes = answer.read()
                return said
        except urllib.error.HTTPError as error:
            raise self.refused(error.code, error.read()) from error
        except (OSError, http.client.HTTPException) as error:
            raise self.unreachable(getattr(error, "reason", None) or error) from error
