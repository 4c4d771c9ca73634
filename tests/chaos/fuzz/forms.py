"""The forms that inputs have: how one is taken apart into plain values, and put together again so that it goes deep.

Checksums and lengths are made anew, or everything that was changed would end at them.
"""

import json
import struct
import tomllib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from chaos.fuzz.trees import Tree, as_json, as_toml
from foredraft.observe.record.frames import HEADER

_LENGTH: Final = struct.Struct(">I")
_PREFIX: Final = struct.Struct(">II")
_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Form:
    """``apart`` raises whatever it wants for what has not this form; ``together`` for what cannot be written so."""

    apart: Callable[[bytes], Tree]
    together: Callable[[Tree], bytes]


def frames_of(data: bytes) -> list[bytes]:
    """Several messages in one input, each after its length; what is cut off comes as it is."""
    frames, at = [], 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        frames.append(data[at : at + length])
        at += length
    return frames


def framed(frames: list[bytes]) -> bytes:
    """One input of several messages."""
    return b"".join(_LENGTH.pack(len(frame)) + frame for frame in frames)


def _plain_or_bytes(data: bytes) -> Tree:
    try:
        return msgspec.msgpack.decode(data)
    except (ValueError, RecursionError):
        return data


def _written(tree: Tree) -> bytes:
    return tree if isinstance(tree, bytes) else msgspec.msgpack.encode(tree)


def _record_apart(data: bytes) -> Tree:
    at, frames = len(HEADER), []
    while at + _PREFIX.size <= len(data):
        length, _ = _PREFIX.unpack_from(data, at)
        at += _PREFIX.size
        frames.append(_plain_or_bytes(data[at : at + length]))
        at += length
    return frames


def _record_together(tree: Tree) -> bytes:
    payloads = [_written(frame) for frame in tree]
    return HEADER + b"".join(_PREFIX.pack(len(one), zlib.crc32(one)) + one for one in payloads)


def _image_apart(data: bytes) -> Tree:
    """The chunks of a PNG."""
    if not data.startswith(_PNG):
        raise ValueError("no PNG")
    at, chunks = len(_PNG), list[Any]()
    while at + 8 <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += length + 12
    return chunks


def _image_together(tree: Tree) -> bytes:
    return _PNG + b"".join(
        _LENGTH.pack(len(data)) + kind + data + _LENGTH.pack(zlib.crc32(kind + data)) for kind, data in tree
    )


MESSAGE: Final = Form(msgspec.msgpack.decode, msgspec.msgpack.encode)
MESSAGES: Final = Form(
    lambda data: list(map(_plain_or_bytes, frames_of(data))), lambda tree: framed(list(map(_written, tree)))
)
RECORD: Final = Form(_record_apart, _record_together)
TOML: Final = Form(lambda data: tomllib.loads(data.decode()), as_toml)
JSON: Final = Form(json.loads, as_json)
IMAGE: Final = Form(_image_apart, _image_together)
