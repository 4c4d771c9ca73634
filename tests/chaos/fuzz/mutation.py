"""An input from valid ones: a few changes to what it says, or to its bytes."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random
from typing import Final

from chaos.fuzz.forms import Form
from chaos.fuzz.trees import Tree, changed

MOST_BYTES: Final = 1 << 18
_BYTES_ALONE: Final = 0.25
"""How often nothing but bytes are changed."""

_STRANGE: Final = (
    b"\0",
    b"\xff",
    b"\x80",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"[",
    b"{",
    b'"',
    b"\n",
    b"=",
)
Change = Callable[[bytes, bytes, Random], bytes]


def mutated(examples: Sequence[bytes], form: Form, luck: Random) -> bytes:
    """An input made of one example, with parts of another."""
    data, other = luck.choice(examples), luck.choice(examples)
    if luck.random() >= _BYTES_ALONE:
        data = _said_otherwise(data, other, form, luck)
        if luck.random() < 0.9:
            return data[:MOST_BYTES]
    for _ in range(luck.choice((1, 1, 2, 4, 16))):
        data = luck.choice(_CHANGES)(data, other, luck)
    return data[:MOST_BYTES]


def _said_otherwise(data: bytes, other: bytes, form: Form, luck: Random) -> bytes:
    """The same form, another content; the example itself where it has not the form, or the content cannot have it."""
    try:
        tree, second = _apart(form, data), _apart(form, other)
        for _ in range(luck.choice((1, 1, 1, 2, 3, 6))):
            tree = changed(tree, second, luck)
        return form.together(tree)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return data


@lru_cache(maxsize=256)
def _apart(form: Form, data: bytes) -> Tree:
    """What an input says, which nobody changes."""
    return form.apart(data)


def _flip(data: bytes, other: bytes, luck: Random) -> bytes:
    if not data:
        return b"\x01"
    at = luck.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << luck.randrange(8)]) + data[at + 1 :]


def _set(data: bytes, other: bytes, luck: Random) -> bytes:
    at = luck.randrange(len(data) + 1)
    return data[:at] + luck.randbytes(luck.choice((1, 2, 4, 8))) + data[at + luck.randrange(5) :]


def _cut(data: bytes, other: bytes, luck: Random) -> bytes:
    return data[: luck.randrange(len(data) + 1)]


def _delete(data: bytes, other: bytes, luck: Random) -> bytes:
    at = luck.randrange(len(data) + 1)
    return data[:at] + data[at + luck.choice((1, 2, 8, 64)) :]


def _repeat(data: bytes, other: bytes, luck: Random) -> bytes:
    at = luck.randrange(len(data) + 1)
    return data[:at] + data[at : at + luck.choice((1, 4, 32))] * luck.choice((1, 1, 2, 40)) + data[at:]


def _insert(data: bytes, other: bytes, luck: Random) -> bytes:
    at = luck.randrange(len(data) + 1)
    return data[:at] + luck.choice(_STRANGE) * luck.choice((1, 1, 1, 2, 100)) + data[at:]


def _splice(data: bytes, other: bytes, luck: Random) -> bytes:
    return data[: luck.randrange(len(data) + 1)] + other[luck.randrange(len(other) + 1) :]


_CHANGES: Final[Sequence[Change]] = (_flip, _flip, _set, _cut, _delete, _repeat, _insert, _splice)
