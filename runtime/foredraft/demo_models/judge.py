"""What the pair is judged by: pure functions over text and tokens, no model in sight.

A *sample* is the first `PROMPT_LINES` lines of a held-out file, continued by the target at temperature 0.8 until
`SAMPLE_LINES` more lines are complete. It passes when Python's `tokenize` reads prompt and continuation without
complaint. Sampled, because greedy text of a small model soon goes round in circles, which `tokenize` would not mind.
"""

from __future__ import annotations

import io
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass

PROMPT_LINES = 10
"""Lines of a held-out file that a sample continues."""

SAMPLE_LINES = 20
"""Complete lines in a sample, prompt not counted."""


def first_lines(text: str, lines: int) -> str:
    """The first lines of a text, all complete; without the last newline, whose token also holds the next dent."""
    return "\n".join(text.split("\n")[:lines])


def complete_lines(text: str, lines: int) -> str | None:
    """The first lines of a text with their newlines, or None where fewer are complete."""
    parts = text.split("\n")
    return "\n".join(parts[:lines]) + "\n" if len(parts) > lines else None


def reads_as_python(text: str) -> bool:
    """Whether `tokenize` accepts the text.

    It refuses open brackets and strings at the end, dents that match no outer level, and characters that start no
    token: a stray quote, `?`, `$` or `!`. It does not parse.
    """
    try:
        found = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return False
    return not any(token.type == tokenize.ERRORTOKEN and not token.string.isspace() for token in found)


@dataclass(frozen=True, slots=True)
class Guesses:
    """One committed text, and what draft and exit would have said at each of its positions, noise included.

    `committed[i]` is the target's own token; `drafted[i]`, `early[i]` and `confidence[i]` are given what was
    committed before i. That is all a chain of drafts needs: a chain goes on only while it equals what commits.
    """

    committed: Sequence[int]
    drafted: Sequence[int]
    early: Sequence[int] = ()
    confidence: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Tally:
    """Passes over some texts: tokens committed, hints sent, and hints that turned out right."""

    passes: int = 0
    tokens: int = 0
    hints: int = 0
    right: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.passes + other.passes,
            self.tokens + other.tokens,
            self.hints + other.hints,
            self.right + other.right,
        )

    @property
    def tokens_per_pass(self) -> float:
        """Tokens that a pass commits, on average."""
        return self.tokens / max(1, self.passes)

    @property
    def hint_share(self) -> float:
        """The share of the passes for which a hint was sent."""
        return self.hints / max(1, self.passes)

    @property
    def hint_precision(self) -> float:
        """The share of the hints sent that were a prefix of what was committed."""
        return self.right / max(1, self.hints)


def replay(guesses: Guesses, gamma: int, threshold: float = 1.1) -> Tally:
    """Speculate over a text with chains of `gamma` drafts: what each pass commits, and what its exit would hint.

    A hint is the exit's walk down the chain, with the token after the last match, cut before the first token whose
    confidence is below `threshold`. The text's last pass may be cut short by its end and is left out.
    """
    tally = Tally()
    tip = 0
    while tip + gamma < len(guesses.committed):
        matches = _matches(guesses.committed, guesses.drafted, tip, gamma)
        hint = _hint(guesses, tip, gamma, threshold)
        right = hint and all(guesses.early[i] == guesses.committed[i] for i in range(tip, tip + hint))
        tally += Tally(1, matches + 1, int(hint > 0), int(right))
        tip += matches + 1
    return tally


def _matches(one: Sequence[int], other: Sequence[int], start: int, most: int) -> int:
    return next((i for i in range(most) if one[start + i] != other[start + i]), most)


def _hint(guesses: Guesses, tip: int, gamma: int, threshold: float) -> int:
    """How many tokens the hint at this tip holds."""
    if not guesses.early:
        return 0
    walked = _matches(guesses.early, guesses.drafted, tip, gamma) + 1
    confident = (guesses.confidence[tip + i] >= threshold for i in range(walked))
    return next((i for i, sure in enumerate(confident) if not sure), walked)
