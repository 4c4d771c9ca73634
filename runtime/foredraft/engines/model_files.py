"""Where a model's files lie, and the digests that name its weights and its tokenizer.

The digest of a model is the SHA-256 of its configuration and of its ``safetensors`` files as
they are stored, so it does not depend on the device or the type that they are loaded into.
Large files are sampled: their header (names, shapes and types of all tensors) and evenly
spaced blocks, which is enough to tell fine-tunes apart, not to prove that nobody tampered.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from foredraft.errors import ModelError
from foredraft.text import tokenizer as text

_WHOLE_BYTES = 256 << 20  # files up to this size are hashed whole
_BLOCK_BYTES = 64 << 10
_HEADER_BYTES = 1 << 20
_BLOCKS = 1024
_DIGEST_CHARS = 32
_VOLATILE_KEYS = (
    "_name_or_path",
    "transformers_version",
    "architectures",
    "dtype",
    "torch_dtype",
    "use_cache",
)
_WANTED = ["*.json", "model*.safetensors"]


def locate(model: str | Path) -> Path:
    """The folder of ``model``: a local folder, or a hub id, which is fetched (or taken from the hub's cache).

    Raises ModelError when it is neither.
    """
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"no model in {str(folder)!r}: config.json is missing; name a folder that has it")
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(model), allow_patterns=_WANTED))
    except (OSError, ValueError) as error:  # the hub's errors derive from these two
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model {str(model)!r} is no local folder and could not be fetched from the hub: {reason}; "
            "check the name and the connection, or give a folder with config.json and model.safetensors"
        ) from error


def model_digest(folder: Path) -> str:
    """The digest of the model in ``folder``: 32 hexadecimal characters. Cached until a file changes."""
    files = weight_files(folder)
    stamp = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in (folder / "config.json", *files))
    return _model_digest(stamp)


def file_digest(file: Path) -> str:
    """The digest of one file with all of a model in it; large ones are sampled. Cached until it changes."""
    return _file_digest(file, file.stat().st_size, file.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _file_digest(file: Path, size: int, changed_ns: int) -> str:
    digest = hashlib.sha256(f"{size}".encode())
    with file.open("rb") as stream:
        if size > _WHOLE_BYTES:
            digest.update(stream.read(_HEADER_BYTES))
            _sample_blocks(digest, stream, size)
        else:
            while block := stream.read(_HEADER_BYTES):
                digest.update(block)
    return digest.hexdigest()[:_DIGEST_CHARS]


def weight_files(folder: Path) -> list[Path]:
    """The model's safetensors files. Raises ModelError when there are none."""
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ModelError(
            f"no model*.safetensors in {str(folder)!r}: only safetensors weights are read; "
            "convert others with save_pretrained(..., safe_serialization=True)"
        )
    return files


@lru_cache(maxsize=16)
def _model_digest(stamp: tuple[tuple[Path, int, int], ...]) -> str:
    (config, _, _), *weights = stamp
    settings = json.loads(config.read_text(encoding="utf-8"))
    for key in _VOLATILE_KEYS:
        settings.pop(key, None)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for file, size, _ in weights:
        digest.update(f"{file.name}:{size}".encode())
        if size <= _WHOLE_BYTES:
            digest.update(file.read_bytes())
        else:
            _sample(digest, file, size)
    return digest.hexdigest()[:_DIGEST_CHARS]


def _sample(digest: "hashlib._Hash", file: Path, size: int) -> None:
    """Feed the header of a safetensors file and evenly spaced blocks of it to ``digest``."""
    with file.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        digest.update(stream.read(min(header_bytes, size)))
        _sample_blocks(digest, stream, size)


def _sample_blocks(digest: "hashlib._Hash", stream: BinaryIO, size: int) -> None:
    for block in range(_BLOCKS):
        stream.seek(block * (size - _BLOCK_BYTES) // (_BLOCKS - 1))
        digest.update(stream.read(_BLOCK_BYTES))


def tokenizer_digest(folder: Path) -> str:
    """The digest of the folder's ``tokenizer.json``. Raises ModelError when there is none."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ModelError(
            f"no tokenizer.json in {str(folder)!r}; write one with "
            "transformers.AutoTokenizer.from_pretrained(...).save_pretrained(folder)"
        )
    return text.tokenizer_digest(file.read_bytes())
