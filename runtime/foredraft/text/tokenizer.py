"""Tokens and text: the tokenizer, and text as it grows.

Needs the ``tokenizers`` library alone, so an edge without torch speaks the target's tokens.
"""

import contextlib
import ctypes
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers.decoders import DecodeStream

from foredraft.errors import ModelError
from foredraft.text.chat_card import ChatCard, read_chat_card
from foredraft.text.stops import StopScanner

_CONTEXT_TOKENS: Final = 8  # enough of the prompt to decide about a leading space
_MOST_HELD_TOKENS: Final = 16  # a character has at most four bytes; more than this is no character
_BROKEN: Final = "\N{REPLACEMENT CHARACTER}"


def tokenizer_digest(data: bytes) -> str:
    """What tells tokenizers apart: the first 32 hexadecimal digits of the SHA-256 of tokenizer.json."""
    return hashlib.sha256(data).hexdigest()[:32]


class Tokenizer:
    """A model's tokenizer, from the bytes of its tokenizer.json. Raises ModelError for others.

    ``chat``: what else the model's folder says, where it comes from one.
    """

    def __init__(self, data: bytes) -> None:
        with _failures("not a tokenizer.json"):
            self._tokenizer = tokenizers.Tokenizer.from_buffer(data)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.digest = tokenizer_digest(data)
        self.json = data
        self.chat = ChatCard()
        _give_memory_back()

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """The tokenizer of the model in ``folder``. Raises ModelError when there is none."""
        try:
            tokenizer = cls((folder / "tokenizer.json").read_bytes())
        except OSError as error:
            raise ModelError(f"no tokenizer.json in {folder}: {error.strerror}") from error
        tokenizer.chat = read_chat_card(folder)
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """The tokens of a prompt, with the special tokens that tokenizer.json puts around a text. Raises ModelError."""
        with _failures("the tokenizer fails at this text"):
            return self._tokenizer.encode(text).ids

    def encode_rendered(self, text: str) -> list[int]:
        """The tokens of what a chat template wrote, which has its special tokens already."""
        with _failures("the tokenizer fails at this text"):
            return self._tokenizer.encode(text, add_special_tokens=False).ids

    def tokens(self) -> list[tuple[int, str]]:
        """All tokens by id, as tokenizer.json writes them."""
        return sorted((token, text) for text, token in self._tokenizer.get_vocab(with_added_tokens=True).items())

    def special_ids(self) -> set[int]:
        """The ids of the special tokens."""
        return {token for token, added in self._tokenizer.get_added_tokens_decoder().items() if added.special}

    def added_ids(self) -> set[int]:
        """The ids of the tokens that are written as they are, special ones among them."""
        return set(self._tokenizer.get_added_tokens_decoder())

    @property
    def writes_bytes_as_letters(self) -> bool:
        """Whether its tokens are written in GPT-2's letters for bytes, and not as SentencePiece does."""
        return b'"ByteLevel"' in self.decoder_json()

    def decoder_json(self) -> bytes:
        """How tokens become text, as tokenizer.json says it; empty where it says nothing."""
        decoder: Any = self._tokenizer.decoder
        return b"" if decoder is None else bytes(decoder.__getstate__())

    def special_text(self, token: int) -> str:
        """How a special token is written in a template; empty for a token that is none."""
        added = self._tokenizer.get_added_tokens_decoder().get(token)
        return added.content if added is not None and added.special else ""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ``tokens``, special tokens left out."""
        with _failures("the tokenizer fails at these tokens"):
            return self._tokenizer.decode(list(tokens), skip_special_tokens=True)

    def written(self, tokens: Sequence[int]) -> str:
        """The text of ``tokens``, special ones as a template writes them."""
        with _failures("the tokenizer fails at these tokens"):
            return self._tokenizer.decode(list(tokens), skip_special_tokens=False)

    def stream(self, context: Sequence[int] = (), stops: Sequence[str] = ()) -> "TextStream":
        """Incremental text of the tokens that follow ``context``, up to a stop string."""
        return TextStream(self, context, stops)


@contextlib.contextmanager
def _failures(what: str) -> Iterator[None]:
    """The library raises bare Exception, and what is none where its own code breaks."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"{what}: {error}") from error


def _give_memory_back() -> None:
    """Return to the system what parsing a tokenizer took for a moment: 18 MB for 32k tokens, which glibc keeps."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library, or another system
        ctypes.CDLL(None).malloc_trim(0)


class _Decoder:
    """Tokens in, whole characters out. Implements ``protocol.ports.Detokenizer``."""

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._held: list[int] = []
        self._restart(list(context[-_CONTEXT_TOKENS:]))

    def _restart(self, context: list[int]) -> None:
        # A context that ends within a character would come out again with what follows.
        within = self._tokenizer.decode(context).endswith(_BROKEN)
        self._context = [] if within else context
        self._stream = DecodeStream(ids=self._context, skip_special_tokens=True)

    def step(self, token: int) -> str:
        self._held.append(token)
        try:
            with _failures("the tokenizer fails at this token"):
                text = self._stream.step(self._tokenizer._tokenizer, token)
        except ModelError:  # a byte that makes the characters before it invalid; the library gives up
            return self.flush()
        if text:
            self._context, self._held = self._held, []
        elif len(self._held) >= _MOST_HELD_TOKENS:
            return self.flush()
        return text or ""

    def flush(self) -> str:
        """The text of the tokens that were held, broken characters as U+FFFD."""
        before = self._tokenizer.decode(self._context)
        whole = self._tokenizer.decode([*self._context, *self._held])
        text = whole[len(before) :] if whole.startswith(before) else self._tokenizer.decode(self._held)
        if self._held:
            self._restart(self._held)
            self._held = []
        return text


class TextStream:
    """The text of a growing list of tokens, in whole characters, up to the first stop string.

    Implements ``protocol.ports.Detokenizer``. ``context`` are the tokens before the first one; they
    decide, with some tokenizers, about a space. ``stopped`` is set once a stop string is complete.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = (), stops: Sequence[str] = ()) -> None:
        self._decoder = _Decoder(tokenizer, context)
        self._scanner = StopScanner(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was completed; the text ended before it."""
        return self._scanner.found

    def step(self, token: int) -> str:
        """The text that ``token`` made certain: no broken character, no beginning of a stop string."""
        return self._scanner.feed(self._decoder.step(token))

    def flush(self) -> str:
        """The end: the rest of the text, an incomplete character as U+FFFD."""
        rest = self._scanner.feed(self._decoder.flush())
        return rest + self._scanner.flush()
