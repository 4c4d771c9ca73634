"""A target and drafts whose distributions are tables, by the last token: for texts drawn by rejection sampling."""

import asyncio
import math
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

from foredraft.engines.scripted import DIGEST
from foredraft.protocol import rejection
from foredraft.protocol.ports import Guess, Pass, Prediction, TargetCard, Verdict
from foredraft.protocol.rejection import Trial
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node

WORDS = 5
TARGET = ((8, 4, 2, 1, 1), (1, 1, 6, 6, 2), (3, 3, 3, 3, 4), (1, 14, 0, 1, 0), (5, 2, 2, 5, 2))
"""By the token before: how often each token comes, of 16."""
DRAFT = ((6, 6, 2, 2, 0), (2, 1, 9, 3, 1), (8, 4, 2, 1, 1), (4, 4, 4, 4, 0), (5, 2, 2, 5, 2))


def warmed(row: Sequence[float], temperature: float) -> list[float]:
    """Chances at a temperature, of a row at temperature 1."""
    shares = [share ** (1.0 / temperature) if share else 0.0 for share in row]
    return [share / sum(shares) for share in shares]


class ChanceTarget:
    """Says what ``TARGET`` has. ``turns``: of the loop, in each pass; ``exits``: they name the likeliest token."""

    def __init__(self, turns: int = 1, exits: tuple[int, ...] = ()) -> None:
        self.card = TargetCard(DIGEST, DIGEST, WORDS, 1 << 20, 8, exits=exits, rejects=True)
        self.turns = turns

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> "ChanceSlot":
        return ChanceSlot(self.turns, sampling.temperature)

    async def close(self) -> None: ...


class ChanceSlot:
    def __init__(self, turns: int, temperature: float) -> None:
        self._turns, self._temperature = turns, temperature
        self.cached = 0

    async def prefill(self, tokens: Sequence[int]) -> float:
        self.cached += len(tokens)
        return 0.0

    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        assert len(batch.trials) == len(batch.tokens) + 1
        rows = [TARGET[token] for token in (batch.trunk[-1], *batch.tokens)]
        for layer in batch.exits:
            on_exit(Prediction(layer, tuple(row.index(max(row)) for row in rows), (0.6,) * len(rows)))
        for _ in range(self._turns):
            await asyncio.sleep(0)
        self.cached += len(batch.trunk)
        said = tuple(
            _said(trial, warmed(row, self._temperature)) for trial, row in zip(batch.trials, rows, strict=True)
        )
        return Verdict(Prediction(8, said, (1.0,) * len(said)), 0.0, 0.0)

    def keep(self, nodes: Sequence[int]) -> None:
        self.cached += len(nodes)

    def close(self) -> None: ...


def _said(trial: Trial, chances: Sequence[float]) -> int:
    others = [0.0 if token in trial.tokens else chance for token, chance in enumerate(chances)]
    other = bisect(list(accumulate(others)), trial.noise_seed / 2**63 * sum(others))
    return rejection.said(trial, [chances[token] for token in trial.tokens], sum(others), min(other, WORDS - 1))


class ChanceDrafter:
    """Guesses what ``DRAFT`` has, the likeliest first; each step takes so many turns of the loop."""

    tokenizer_digest = ""
    max_nodes_per_step = 8

    def __init__(self, turns: int = 1) -> None:
        self._turns = turns

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        assert sampling.temperature == 0.0, "it is asked for the likeliest"

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        for _ in range(self._turns):
            await asyncio.sleep(0)
        return [guesses(node.token, width) for node in nodes]

    def advance(self, tokens: Sequence[int]) -> None: ...

    async def close(self) -> None: ...


def guesses(token: int, width: int) -> list[Guess]:
    """What the draft says comes after a token, likeliest first."""
    row = DRAFT[token]
    likeliest = sorted(range(WORDS), key=lambda word: -row[word])
    return [Guess(word, row[word] / sum(row)) for word in likeliest[:width] if row[word]]


Parts = Mapping[tuple[int, int], tuple[Counter[int], Mapping[int, float]]]


def transitions(texts: Sequence[Sequence[int]], temperature: float) -> Parts:
    """By the two tokens before: how often each token came, and with what chance it does."""
    parts: dict[tuple[int, int], tuple[Counter[int], Mapping[int, float]]] = {}
    for text in texts:
        for before, last, token in zip(text, text[1:], text[2:], strict=False):
            chances = {word: chance for word, chance in enumerate(warmed(TARGET[last], temperature)) if chance}
            parts.setdefault((before, last), (Counter(), chances))[0][token] += 1
    return parts


def best_acceptance(last: int, temperature: float) -> float:
    """How often a first candidate after ``last`` can be accepted at best."""
    proposed = warmed(DRAFT[last], temperature)
    return math.fsum(map(min, zip(proposed, warmed(TARGET[last], temperature), strict=True)))
