"""The text that exit heads learn from: files to token windows, some of them held out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer
from torch import Tensor

from foredraft.engines.torch_model import LoadedModel
from foredraft.errors import ConfigError, ModelError

log = logging.getLogger("foredraft.exits")

HELD_OUT_ONE_IN: Final = 8  # windows, where no files are held out by name
MIN_HELD_OUT_TOKENS: Final = 4096  # half fits the confidence, half judges it
MAX_HELD_OUT_TOKENS: Final = 32_768  # more says nothing new and costs time


@dataclass(frozen=True, slots=True)
class Windows:
    """Token windows ``[count, length]`` int64. ``held_out`` shares none with ``train``."""

    train: Tensor
    held_out: Tensor

    @property
    def digest(self) -> str:
        """SHA-256 over both parts."""
        digest = hashlib.sha256()
        for part in (self.train, self.held_out):
            digest.update(repr(tuple(part.shape)).encode())
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()


def find_files(patterns: Iterable[str]) -> list[Path]:
    """The files that paths, folders (all in it, hidden ones left out) and glob patterns name, in a fixed order.

    Raises:
        ConfigError: a pattern names nothing.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = [f for f in sorted(path.rglob("*")) if f.is_file() and not _is_hidden(f.relative_to(path))]
        else:
            relative = str(path.relative_to(path.anchor))
            files = [file for file in sorted(Path(path.anchor).glob(relative)) if file.is_file()]
        if not files:
            raise ConfigError(f"no text files at {pattern!r}: give files, folders, or a pattern in quotes")
        found.update(dict.fromkeys(files))
    return list(found)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def read_text(source: Path | str) -> str:
    """The text of a file; a string is text already. Raises UnicodeDecodeError for a file of anything else."""
    if isinstance(source, str):
        return source
    try:
        return source.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {source}: {error.strerror or error}") from error


class TextReader:
    """Texts to tokens, each between the model's begin and end marks where it has them."""

    def __init__(self, model: LoadedModel) -> None:
        path = model.folder / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(f"cannot read the tokenizer {path}: {error}") from error
        self._begin, self._end = (_first_mark(getattr(model.config, f"{end}_token_id", None)) for end in ("bos", "eos"))
        self._vocab_size = model.vocab_size

    def windows(self, texts: Sequence[Path | str], length: int) -> Tensor:
        """Whole windows of the texts' tokens, one text after another: ``[count, length]`` int64."""
        stream: list[int] = []
        unreadable = 0
        for source in texts:
            try:
                text = read_text(source)
            except UnicodeDecodeError as error:
                log.warning("%s is not UTF-8 text (%s); it is left out", source, error)
                unreadable += 1
                continue
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
            stream += [*self._begin, *ids, *(self._end if self._end != self._begin else ())]
        if unreadable:
            log.warning("%d of %d files were left out, as they are not UTF-8 text", unreadable, len(texts))
        if stream and max(stream) >= self._vocab_size:
            raise ModelError(f"the tokenizer has token {max(stream)}, the model a vocabulary of {self._vocab_size}")
        count = len(stream) // length
        return torch.tensor(stream[: count * length], dtype=torch.int64).reshape(count, length)


def _first_mark(token: int | Sequence[int] | None) -> tuple[int, ...]:
    """The mark as a tuple of one or none; some models name several ends."""
    if token is None:
        return ()
    return (token,) if isinstance(token, int) else tuple(token[:1])


def make_windows(
    reader: TextReader,
    texts: Sequence[Path | str],
    held_out: Sequence[Path | str] | None,
    length: int,
    batch: int,
) -> Windows:
    """Cut the texts into windows of ``length`` tokens. Without ``held_out`` every eighth window is held out.

    Raises:
        ConfigError: there is too little text; the message says how much is needed.
    """
    train = reader.windows(texts, length)
    if held_out is not None:
        kept = reader.windows(held_out, length)
    else:
        chosen = torch.arange(len(train)) % HELD_OUT_ONE_IN == HELD_OUT_ONE_IN - 1
        train, kept = train[~chosen], train[chosen]
    needed = -(-MIN_HELD_OUT_TOKENS // length)
    if len(kept) < needed or len(train) < batch:
        raise ConfigError(
            f"too little text: {train.numel()} tokens to train on and {kept.numel()} held out, in windows of {length}; "
            f"needed are {batch * length} (one batch) and {needed * length}. Give "
            + ("more text" if held_out is not None else f"about {HELD_OUT_ONE_IN * needed * length} tokens in all")
        )
    most = max(needed, MAX_HELD_OUT_TOKENS // length)
    if len(kept) > most:
        kept = kept[torch.arange(most) * len(kept) // most]
    return Windows(train, kept)


def batch_rows(seed: int, step: int, windows: int, batch: int) -> Tensor:
    """Which windows step ``step`` trains on: a function of its arguments alone, so a resumed run sees the same.

    Every epoch is a fresh shuffle; what does not fill a last batch waits for the next epoch's shuffle.
    """
    per_epoch = windows // batch
    epoch, place = divmod(step, per_epoch)
    order = torch.randperm(windows, generator=torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63))
    return order[place * batch : (place + 1) * batch]
