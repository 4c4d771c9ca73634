"""The shortest way to end a text that is held to a grammar: for one that is out of time.

A search over the tokens that the grammar allows, cheapest first. Of a few allowed tokens all are tried; of many, only
those of one byte that end or separate things, a few letters and digits: what a grammar needs to get on.
Tokens that close something cost less than others, so that a deep text is closed before something new is opened in it.
"""

import heapq
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

CLOSING: Final = b"\"}])'>;\n."
OTHERS: Final = b"".join(
    (b"a01A :,-_/+=@#%&*!?(<[{|\\^~`$", bytes((0x80, 0xA0, 0x90)))
)  # and what goes on with a letter
FEW: Final = 32
"""So many allowed tokens are all tried."""

CHOSEN_COSTS: Final = 5
"""What a token costs that closes nothing, and is not the only one; the others cost 1."""

DETOUR_COSTS: Final = 25
"""The same where words could be closed instead."""

MOST_STEPS: Final = 2048
"""Tokens that are tried in all."""


class PlainTokens:
    """The tokens of one byte that a search tries; ``closing``: those of them that close something, cheap ones."""

    def __init__(self, tokenizer: "LLTokenizer") -> None:
        closing, others = ([_token(tokenizer, byte) for byte in some] for some in (CLOSING, OTHERS))
        self.closing = frozenset(token for token in closing if token is not None)
        self.all = tuple(token for token in (*closing, *others) if token is not None)


def _token(tokenizer: "LLTokenizer", byte: int) -> int | None:
    """The token of one byte; None where the vocabulary has none."""
    tokens = tokenizer.tokenize_bytes(bytes((byte,)))
    return tokens[0] if len(tokens) == 1 else None


def shortest_ending(
    matcher: "LLMatcher", plain: PlainTokens, stops: Iterable[int], most: int, steps: int = MOST_STEPS
) -> list[int] | None:
    """The tokens, at most ``most``, after which the text is whole; None where ``steps`` find none.

    ``matcher`` is at the end of the text, and is there afterwards. End marks are not part of what is found.
    """
    ends, order = frozenset(stops), 0
    heap: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, ())]
    while heap:
        cost, _, path = heapq.heappop(heap)
        if path and not matcher.consume_tokens(list(path)):
            return None  # the grammar grew too large
        if matcher.is_accepting():
            matcher.rollback(len(path))
            return list(path)
        if len(path) < most:
            mask = matcher.compute_bitmask()
            next_tokens, words = _next_tokens(mask, plain, ends)
            steps -= len(next_tokens)
            for token, more in _costs(matcher, next_tokens, words, mask, plain):
                order += 1
                heapq.heappush(heap, (cost + more, order, (*path, token)))
        matcher.rollback(len(path))
        if steps <= 0:
            return None
    return None


def _next_tokens(mask: bytes, plain: PlainTokens, ends: frozenset[int]) -> tuple[list[int], bool]:
    """Of the tokens that the mask allows, those to try, the closing ones first; and whether that is within words."""
    bits = int.from_bytes(mask, "little")
    words = bits.bit_count() > FEW
    found: list[int] = []
    if words:
        found = [token for token in plain.all if bits >> token & 1]
    while bits and not words:
        found.append((bits & -bits).bit_length() - 1)
        bits &= bits - 1
    return sorted((token for token in found if token not in ends), key=lambda token: token not in plain.closing), words


def _costs(
    matcher: "LLMatcher", tokens: Sequence[int], words: bool, before: bytes, plain: PlainTokens
) -> list[tuple[int, int]]:
    """The tokens worth trying and what each costs: of those that leave the same choice the first alone.

    Within words a mark that changes nothing closes nothing; and where they can be closed, going on with them is no way.
    """
    if len(tokens) == 1:
        return [(tokens[0], 1)]
    kept: list[tuple[int, int]] = []
    left: set[tuple[bytes, bool]] = set()
    closed = False
    for token in tokens:
        if not matcher.consume_token(token):
            continue
        after = matcher.compute_bitmask(), matcher.is_accepting()
        matcher.rollback(1)
        closes = token in plain.closing
        if after in left or (words and closes and after[0] == before):
            continue
        left.add(after)
        closed = closed or (words and closes)
        kept.append((token, 1 if closes else DETOUR_COSTS if closed else CHOSEN_COSTS))
    return kept
