"""Drafting by lookup: what followed the last time that the text looked like this.

Prompt lookup (Saxena, 2023) with probabilities in the manner of PPM (Cleary and Witten, 1984):
the longest suffix that has been seen before speaks first, and the mass that it keeps back for
what never followed it goes to the next shorter one. How much that is, is learnt for each
length of suffix from how often the next token was among those that had followed. Neither
torch nor transformers, and no model: the index is built from the committed text alone.
"""

import asyncio
from collections.abc import Iterable, Sequence

from foredraft.errors import ConfigError
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node

_NODES_PER_STEP = 64
_LEAST_PROBABILITY, _MOST_PROBABILITY = 1e-6, 1.0 - 1e-6


class SuffixIndex:
    """What followed each run of ``min_n`` to ``max_n`` tokens, and how often.

    ``add`` and ``guesses`` take O(max_n) dictionary look-ups.
    """

    def __init__(self, min_n: int, max_n: int) -> None:
        self._min_n, self._max_n = min_n, max_n
        self._followers: dict[tuple[int, ...], dict[int, int]] = {}
        self._tail: tuple[int, ...] = ()
        # By length of suffix: how often one had been seen before, and how often it knew what came
        # next; one success in two to begin with (Laplace's rule).
        self._asked = [2] * (max_n + 1)
        self._knew = [1] * (max_n + 1)
        self.tokens_seen = 0

    def begin(self) -> None:
        """A text begins: what comes next follows nothing that came before."""
        self._tail = ()

    @property
    def tail(self) -> tuple[int, ...]:
        """The last ``max_n`` tokens of the text, or all of a shorter one."""
        return self._tail

    def add(self, tokens: Iterable[int]) -> None:
        """The text goes on with ``tokens``."""
        for token in tokens:
            for n in range(self._min_n, len(self._tail) + 1):
                suffix = self._tail[len(self._tail) - n :]
                followers = self._followers.get(suffix)
                if followers is None:
                    followers = self._followers[suffix] = {}
                else:
                    self._asked[n] += 1
                    self._knew[n] += token in followers
                # Re-inserted, so that a dictionary's order is that of the latest sightings.
                followers[token] = followers.pop(token, 0) + 1
            self._tail = (*self._tail, token)[-self._max_n :]
            self.tokens_seen += 1

    def guesses(self, suffix: Sequence[int], width: int) -> list[Guess]:
        """Up to ``width`` tokens that followed a tail of ``suffix``, best first.

        Longer tails count first; among the followers of one tail the more frequent, then the
        more recent.
        """
        found: dict[int, float] = {}
        left = 1.0
        for n in range(min(self._max_n, len(suffix)), self._min_n - 1, -1):
            followers = self._followers.get(tuple(suffix[len(suffix) - n :]))
            if followers is None:
                continue
            fresh = {token: count for token, count in reversed(followers.items()) if token not in found}
            if not fresh:
                continue  # all of them spoken for by longer tails
            knows = self._knew[n] / self._asked[n]
            total = sum(fresh.values())
            for token in sorted(fresh, key=lambda token: -fresh[token]):
                found[token] = left * knows * fresh[token] / total
            left *= 1.0 - knows
            if len(found) >= width:
                break
        best = sorted(found.items(), key=lambda item: -item[1])[:width]
        return [Guess(token, min(max(p, _LEAST_PROBABILITY), _MOST_PROBABILITY)) for token, p in best]


class NgramDrafter:
    """A Drafter that looks up the committed text; it speaks any tokenizer's ids.

    ``keep``: texts that ended stay in the index, so later texts of a session profit, until
    it has seen ``max_indexed_tokens`` (about 1 kB each where nothing repeats); then it begins anew
    with the end of the present text. It occupies no device: a step is over at once, and still
    gives way to other tasks.
    """

    tokenizer_digest = ""
    max_nodes_per_step = _NODES_PER_STEP

    def __init__(self, *, min_n: int = 1, max_n: int = 4, keep: bool = True, max_indexed_tokens: int = 16_384) -> None:
        if not 1 <= min_n <= max_n <= 16:
            raise ConfigError(f"n-grams must have 1 <= min_n <= max_n <= 16, not {min_n} and {max_n}")
        if max_indexed_tokens < 1:
            raise ConfigError(f"max_indexed_tokens must be 1 or more, not {max_indexed_tokens}")
        self._min_n, self._max_n = min_n, max_n
        self._keep = keep
        self._max_indexed_tokens = max_indexed_tokens
        self._index = SuffixIndex(min_n, max_n)
        self._text: list[int] = []

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A text begins with ``tokens``. One that goes on from the last (a resume) is not counted twice."""
        common = len(self._text)
        if not self._text or list(tokens[:common]) != self._text:
            if not self._keep:
                self._index = SuffixIndex(self._min_n, self._max_n)
            self._index.begin()
            self._text = []
            common = 0
        self.advance(tokens[common:])
        await asyncio.sleep(0)

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """For each node, up to ``width`` tokens seen after the suffix that ends there; O(max_n) a node."""
        await asyncio.sleep(0)
        return [self._index.guesses(self._suffix(node), width) if node.alive else [] for node in nodes]

    def advance(self, tokens: Sequence[int]) -> None:
        """The committed text grew by ``tokens``."""
        self._text.extend(tokens)
        if self._index.tokens_seen + len(tokens) > self._max_indexed_tokens:
            self._index = SuffixIndex(self._min_n, self._max_n)
            self._index.add(self._text[-max(1, self._max_indexed_tokens // 2) :])
        else:
            self._index.add(tokens)

    async def close(self) -> None:
        """Forget everything."""
        self._index = SuffixIndex(self._min_n, self._max_n)
        self._text = []

    def _suffix(self, node: Node) -> list[int]:
        """The last tokens before what follows ``node``: its path, and the committed text's tail."""
        path: list[int] = []
        step: Node | None = node
        while step is not None and step.parent is not None and len(path) < self._max_n:
            path.append(step.token)
            step = step.parent
        path.reverse()
        return [*self._index.tail, *path][-self._max_n :]
