"""What a file or a message says, as plain values, changed in one place: types, sizes, names, order."""

import json
import math
from collections.abc import Iterator
from datetime import date, time
from random import Random
from typing import Any, Final

Tree = Any
"""None, bool, int, float, str, bytes, list, dict, and ``Raw``."""


class Raw(str):
    """Text that stands in a file as it is, for values that no writer would write."""


ODD: Final[tuple[Tree, ...]] = (
    *(None, True, False, 0, 1, -1, 2, 255, 256, 1 << 31, 1 << 32, -(1 << 31), (1 << 63) - 1, 1 << 63, -(1 << 63)),
    *((1 << 64) - 1, 1 << 64, 10**40, -(10**400), 0.0, -0.0, 0.5, 1.0, -1.5, 1e-320, 1e9, 1e308, -1e308),
    *(math.inf, -math.inf, math.nan),
    *("", " ", "\0", "a\0b", "a\0.toml", "a" * 1_100, "\ud800", "\u202e", "\x1b[2J", "\N{GRINNING FACE}" * 9),
    *(
        ".",
        "/",
        "~",
        "nan",
        "inf",
        "-1",
        "1e999",
        "None",
        "true",
        "{}",
        "[]",
        "%s%n",
        "{0.__class__}",
        "demo",
        "*.toml",
    ),
    *("../../etc/passwd", ".toml", "/dev/null", "x" * 300 + ".toml", ".a:b", ":", "a:b:c=d", "os:system:x=1", "a" * 70),
    *(b"", b"\0", b"\xff" * 9, b"\x80\x80\x80\x80\x01", b"a" * 600),
    *([], {}, [[]], [None], {"": 0}, {"value": 1}, [0] * 70, ["a"] * 300, {"a": {"b": {"c": [1]}}}),
    *(Raw("1e999"), Raw("-1e-999"), Raw("nan"), Raw("null"), Raw("{"), Raw("0xffffffffffffffffffff"), Raw("-0")),
    *(Raw("1979-05-27T07:32:00Z"), Raw("9999-12-31T23:59:59-23:59"), Raw("07:32:00"), Raw("0000-00-00")),
)
"""Values that somebody did not think of."""

LARGE: Final[tuple[Tree, ...]] = (
    *("a" * 70_000, b"\xff" * 70_000, ["a"] * 3_000, "[" * 3_000),
    *(Raw("9" * 5_000), Raw("9" * 400), Raw("0x" + "f" * 5_000), Raw("[" * 3_000)),
)
"""The same, seldom: what takes long to read."""


def copied(tree: Tree) -> Tree:
    """The tree, of which nothing is shared that can change."""
    if isinstance(tree, dict):
        return {at: copied(value) for at, value in tree.items()}
    return [copied(value) for value in tree] if isinstance(tree, list) else tree


def changed(tree: Tree, other: Tree, luck: Random) -> Tree:
    """A copy of ``tree`` with one change; ``other`` is a second one, parts of which may come in."""
    whole = {"": copied(tree)}
    holder, at = luck.choice([*_places(whole)])
    luck.choice(_CHANGES)(holder, at, other, luck)
    return whole.get("")


def _places(holder: Tree) -> Iterator[tuple[Tree, Any]]:
    """Every value below ``holder``, as what holds it and where."""
    held = holder.items() if isinstance(holder, dict) else enumerate(holder)
    for at, value in held:
        yield holder, at
        if isinstance(value, dict | list):
            yield from _places(value)


def _odd(holder: Tree, at: Any, other: Tree, luck: Random) -> None:
    holder[at] = copied(luck.choice(ODD if luck.random() < 0.98 else LARGE))


def _nudge(holder: Tree, at: Any, other: Tree, luck: Random) -> None:
    """Another value of the same type."""
    value = holder[at]
    if isinstance(value, bool):
        holder[at] = not value
    elif isinstance(value, int):
        holder[at] = luck.choice(
            (value + 1, value - 1, -value, value * 2, value * 10**9, value // 2, float(value % 2**53))
        )
    elif isinstance(value, float):
        holder[at] = luck.choice((-value, value * 1e9, value * 1e-9, value + 1.0, math.nan, math.inf))
    elif isinstance(value, str) and not isinstance(value, Raw):
        place, letter = luck.randrange(len(value) + 1), luck.choice("\0aZ0-_.:/=+,\"'[]{}\n\ud800é\u202e")
        holder[at] = value[:place] + letter * luck.choice((0, 1, 1, 2, 200)) + value[place + luck.randrange(3) :]
    elif isinstance(value, bytes):
        place = luck.randrange(len(value) + 1)
        holder[at] = value[:place] + luck.randbytes(luck.choice((0, 1, 2, 40))) + value[place + luck.randrange(3) :]
    elif isinstance(value, list):
        luck.shuffle(value)


def _drop(holder: Tree, at: Any, other: Tree, luck: Random) -> None:
    del holder[at]


def _rename(holder: Tree, at: Any, other: Tree, luck: Random) -> None:
    """The value goes by another name, or comes twice."""
    if isinstance(holder, dict) and at != "":
        name = luck.choice((f"{at}x", str(at)[1:], str(at).upper(), "kind", "value", "path", "provenance", "a.b", "\0"))
        holder[name] = copied(holder[at]) if luck.random() < 0.5 else holder.pop(at)
    elif isinstance(holder, list):
        holder.insert(luck.randrange(len(holder) + 1), copied(holder[at]))


def _wrap(holder: Tree, at: Any, other: Tree, luck: Random) -> None:
    for _ in range(luck.choice((1, 1, 2, 100))):
        holder[at] = luck.choice(([holder[at]], {"value": holder[at]}))


def _graft(holder: Tree, at: Any, other: Tree, luck: Random) -> None:
    """A part of the other tree in this place."""
    place, key = luck.choice([*_places({"": other})])
    holder[at] = copied(place[key])


def _grow(holder: Tree, at: Any, other: Tree, luck: Random) -> None:
    """Many times the same."""
    value = holder[at]
    if isinstance(value, list | str | bytes) and not isinstance(value, Raw):
        holder[at] = value * min(luck.choice((2, 2, 17, 300)), 20_000 // (len(value) or 1))
    elif isinstance(value, dict):
        value.update({f"k{number}": number for number in range(luck.choice((1, 1, 100)))})


_CHANGES: Final = (_odd, _odd, _odd, _nudge, _nudge, _nudge, _drop, _rename, _wrap, _graft, _graft, _grow)


def as_json(tree: Tree) -> bytes:
    """JSON, and what only looks like it."""
    return _text(tree, ":", "null").encode("utf-8", "surrogatepass")


def as_toml(tree: Tree) -> bytes:
    """TOML, each key of the file with an inline table; and what only looks like it."""
    if not isinstance(tree, dict):
        return _text(tree, "=", '"null"').encode("utf-8", "surrogatepass")
    lines = [f"{_key(name)} = {_text(value, '=', chr(34) * 2)}" for name, value in tree.items()]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _key(name: Any) -> str:
    return json.dumps(str(name), ensure_ascii=False)


def _text(tree: Tree, between: str, nothing: str) -> str:
    """The tree as text; from the inside, since it may be deeper than Python's stack."""
    match tree:
        case Raw():
            return str(tree)
        case None:
            return nothing
        case bool():
            return str(tree).lower()
        case date() | time():
            return tree.isoformat()
        case bytes():
            return json.dumps(tree.decode("latin-1"))
        case dict():
            return (
                "{" + ",".join(f"{_key(at)}{between}{_text(one, between, nothing)}" for at, one in tree.items()) + "}"
            )
        case list() | tuple():
            return "[" + ",".join(_text(one, between, nothing) for one in tree) + "]"
        case _:
            return json.dumps(tree, ensure_ascii=False)
