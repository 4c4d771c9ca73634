"""How far two texts say the same."""

from collections.abc import Iterable


def common_prefix(one: Iterable[int], other: Iterable[int]) -> int:
    """How many tokens both begin with."""
    count = 0
    for token, same in zip(one, other, strict=False):
        if token != same:
            break
        count += 1
    return count
