"""A GGUF file in llama.cpp, in this process: its weights, its vocabulary, and contexts to run it in.

Needs llama-cpp-python alone, of which only the functions of llama.cpp itself are used. What llama.cpp checks by
ending the process is checked here before.

``use_extra_bufts`` stays off: with it llama.cpp repacks weights for special instructions, and where a virtual machine
announces AMX and does not bear it (seen here), the process dies.
"""

import ctypes
import logging
import os
import time
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from foredraft.engines.branches import Row
from foredraft.engines.llama_options import CACHE_TYPES, LlamaOptions
from foredraft.engines.model_files import file_digest
from foredraft.errors import ModelError
from foredraft.text.tokenizer import Tokenizer
from foredraft.text.vocabulary import Vocabulary

log = logging.getLogger("foredraft.llama")

_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.INFO, 4: logging.WARNING}
_said: deque[str] = deque(maxlen=8)  # errors of llama.cpp, the latest last: why a file was not loaded
_NO_VOCABULARY = 0
_MAGIC = b"GGUF"
_NORMAL = 1 << 2  # a token that is a piece of a word
_TREE_CELLS = 256
_LONGEST_PIECE = 1024


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _tell(level: int, text: bytes, _: object) -> None:
    """llama.cpp says something: it goes to our log, and its errors are kept for who asks why."""
    line = text.decode(errors="replace").strip()
    if not line or line.strip(".") == "":
        return
    if level == 4:
        _said.append(line)
    log.log(_LEVELS.get(level, logging.DEBUG), "%s", line)


class LlamaModel:
    """Weights and vocabulary. ``context``: the longest text, in tokens."""

    def __init__(self, file: Path, options: LlamaOptions) -> None:
        """Load a file; takes a moment. Raises ModelError for what is no GGUF, and for models that cannot draft."""
        self.file, self.options = file, options
        self.tokenizer_digest = ""  # known once the vocabulary has been compared with a tokenizer's
        _check_file(file)
        lib.llama_log_set(_tell, ctypes.c_void_p(0))
        params = lib.llama_model_default_params()
        params.use_extra_bufts = False
        params.n_gpu_layers = options.gpu_layers
        _said.clear()
        pointer = lib.llama_model_load_from_file(os.fsencode(file), params)
        if not pointer:
            raise ModelError(f"{str(file)!r} cannot be loaded by llama.cpp: {_why()}; use a whole GGUF file")
        self.pointer: Any = pointer
        self._free = weakref.finalize(self, lib.llama_model_free, pointer)
        self._free.atexit = False  # a step may be in flight then
        self._check_kind()
        self._vocabulary = lib.llama_model_get_vocab(pointer)
        self.vocab_size = int(lib.llama_vocab_n_tokens(self._vocabulary))
        self.spoken = self.vocab_size  # what lies beyond is padding
        self.layers = int(lib.llama_model_n_layer(pointer))
        self.context = min(int(lib.llama_model_n_ctx_train(pointer)), options.context)
        self.digest = file_digest(file)

    def _check_kind(self) -> None:
        """Raise ModelError for what is no decoder whose cache can be rolled back, token by token."""
        pointer, kind = self.pointer, self.metadata("general.architecture")
        if lib.llama_model_is_recurrent(pointer) or lib.llama_model_is_hybrid(pointer):
            why = "is recurrent: its state cannot be rolled back to before a wrong draft"
        elif lib.llama_model_has_encoder(pointer) or not lib.llama_model_has_decoder(pointer):
            why = "has an encoder: drafts need a model that only decodes"
        elif lib.llama_model_is_diffusion(pointer):
            why = "does not write from left to right"
        elif self.metadata(f"{kind}.attention.causal") == "false" or self.metadata(f"{kind}.pooling_type"):
            why = "makes embeddings and no text"
        elif lib.llama_vocab_type(lib.llama_model_get_vocab(pointer)) == _NO_VOCABULARY:
            why = "has no vocabulary"
        else:
            return
        raise ModelError(f"{str(self.file)!r} ({kind}) {why}; use a GGUF of a model of the target's family")

    def metadata(self, key: str) -> str:
        """What the file says under a key; empty where it says nothing."""
        buffer = ctypes.create_string_buffer(256)
        size = lib.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace") if size >= 0 else ""

    def vocabulary(self) -> Vocabulary:
        """The tokens as the file writes them, and which are pieces of words."""
        tokens = [
            (lib.llama_vocab_get_text(self._vocabulary, token) or b"").decode(errors="replace")
            for token in range(self.vocab_size)
        ]
        words = {token for token in range(len(tokens)) if lib.llama_vocab_get_attr(self._vocabulary, token) & _NORMAL}
        return Vocabulary(tokens, frozenset(words))

    def encode(self, text: str) -> list[int]:
        """The tokens of a whole text, with those that the model wants around it."""
        data = text.encode()
        room = len(data) + 8
        buffer = (lib.llama_token * room)()
        count = lib.llama_tokenize(self._vocabulary, data, len(data), buffer, room, True, True)
        return list(buffer[: max(0, count)])

    def pieces(self) -> dict[int, bytes]:
        """The bytes of each token; none for special ones."""
        buffer = ctypes.create_string_buffer(_LONGEST_PIECE)
        found = {}
        for token in range(self.vocab_size):
            size = lib.llama_token_to_piece(self._vocabulary, token, buffer, _LONGEST_PIECE, 0, False)
            found[token] = buffer.raw[: max(0, size)]
        return found

    def marks(self) -> set[str]:
        """The special tokens, as a template writes them."""
        vocabulary = self.vocabulary()
        return {text for token, text in enumerate(vocabulary.tokens) if token not in vocabulary.words}

    def speak(self, tokenizer: Tokenizer) -> None:
        """Draft for a target with this tokenizer. Raises ModelError, naming what differs, where it is another."""
        self.vocabulary().check(tokenizer, str(self.file))
        self.spoken = min(self.vocab_size, tokenizer.vocab_size)
        self.tokenizer_digest = tokenizer.digest

    def outside(self, tokens: Sequence[int]) -> str:
        """What is wrong with token ids that the vocabulary lacks; empty if nothing is."""
        for token in tokens:
            if not 0 <= token < self.vocab_size:
                return f"token id {token} is outside the draft's vocabulary of {self.vocab_size}: its tokenizer differs"
        return ""


class LlamaContext:
    """One text's cache and the buffers to run it. Implements ``branches.SequenceMemory``. Used by one thread at a time.

    ``cells``: how many tokens the cache holds, text and tree; ``sequences``: how many branches, the text among them.
    """

    def __init__(self, model: LlamaModel) -> None:
        """Raises ModelError where there is no memory for it."""
        options = model.options
        self.model, self._batch_size = model, options.batch
        self.sequences = options.branches + 1
        params = lib.llama_context_default_params()
        params.n_ctx = model.context + _TREE_CELLS
        params.n_batch = params.n_ubatch = options.batch
        params.n_seq_max = params.n_outputs_max = self.sequences
        params.kv_unified = params.swa_full = True  # what is dropped is dropped by us
        params.n_threads = options.threads or min(os.cpu_count() or 1, 8)
        params.n_threads_batch = options.batch_threads or params.n_threads
        params.flash_attn_type = options.flash_attention
        params.type_k = params.type_v = CACHE_TYPES[options.cache_type]
        params.offload_kqv = options.gpu_layers != 0
        _said.clear()
        pointer = lib.llama_init_from_model(model.pointer, params)
        if not pointer:
            raise ModelError(
                f"llama.cpp made no context of {params.n_ctx} tokens for {str(model.file)!r}: {_why()}; "
                "ask for a shorter one with --draft-option context=N"
            )
        self._pointer: Any = pointer
        self._free = weakref.finalize(self, lib.llama_free, pointer)
        self._free.atexit = False
        self._memory = lib.llama_get_memory(pointer)
        self.decoding_s = 0.0  # in llama.cpp's own decode, all in all
        self.cells = int(lib.llama_n_ctx(pointer))
        self._batch = lib.llama_batch_init(options.batch, 0, self.sequences)
        weakref.finalize(self, lib.llama_batch_free, self._batch).atexit = False

    def close(self) -> None:
        """Free the cache. Twice is fine."""
        self._free()

    def copy(self, source: int, target: int, begin: int, end: int) -> None:
        """See ``SequenceMemory``."""
        lib.llama_memory_seq_cp(self._memory, source, target, begin, end)

    def remove(self, sequence: int, begin: int = 0) -> None:
        """See ``SequenceMemory``."""
        lib.llama_memory_seq_rm(self._memory, sequence, begin, -1)

    def decode(self, rows: Sequence[Row], asked: Sequence[int]) -> NDArray[np.float32]:
        """Run ``rows``; the logits of those ``asked`` for, ``[asked, vocab]``. Raises ModelError, the cache then lost.

        The array is llama.cpp's own where one batch sufficed: good until the next call.
        """
        parts: list[NDArray[np.float32]] = []
        wanted = set(asked)
        for first in range(0, len(rows), self._batch_size):
            part = rows[first : first + self._batch_size]
            marks = [first + at in wanted for at in range(len(part))]
            self._decode(part, marks)
            if any(marks):
                logits = np.ctypeslib.as_array(lib.llama_get_logits(self._pointer), (sum(marks), self.model.vocab_size))
                parts.append(logits if len(rows) <= self._batch_size else logits.copy())
        if not parts:
            return np.empty((0, self.model.vocab_size), np.float32)
        found = parts[0] if len(parts) == 1 else np.concatenate(parts)
        order = sorted(wanted)
        if list(asked) == order:
            return found
        return found[[order.index(row) for row in asked]]

    def _decode(self, rows: Sequence[Row], marks: Sequence[bool]) -> None:
        batch = self._batch
        batch.n_tokens = len(rows)
        for at, (row, mark) in enumerate(zip(rows, marks, strict=True)):
            batch.token[at], batch.pos[at], batch.logits[at] = row.token, row.position, mark
            batch.n_seq_id[at] = len(row.sequences)
            for place, sequence in enumerate(row.sequences):
                batch.seq_id[at][place] = sequence
        _said.clear()
        began_s = time.perf_counter()
        code = lib.llama_decode(self._pointer, batch)
        self.decoding_s += time.perf_counter() - began_s
        if code != 0:
            lib.llama_memory_clear(self._memory, True)
            raise ModelError(f"llama.cpp could not run {len(rows)} tokens of the draft (code {code}): {_why()}")


def _check_file(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            magic = stream.read(len(_MAGIC))
    except OSError as error:
        raise ModelError(f"cannot read {str(file)!r}: {error.strerror or error}") from error
    if magic != _MAGIC:
        raise ModelError(f"{str(file)!r} is no GGUF file: it begins with {magic!r}, not with {_MAGIC!r}")


def _why() -> str:
    """What llama.cpp said last, in a line."""
    lines = [line for line in _said if "failed to load model" not in line] or list(_said)
    return lines[0] if lines else "it does not say why"
