"""How sure it is that a text is complete in time, by what the cloud does next: pure functions for ``auto``.

What is next is one pass: alone, or after waiting for so many draft steps and a round trip. Its tokens are as many as
the draft is right about; the rest of the text goes on as the session went so far. The time to the end of all is taken
for normal, with the spread of the round trip, of the tokens of a pass, and of how long tokens took; so what is most
probable in time has its mean the most standard deviations before the deadline. Where no mean is, a spread is a hope.
"""

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from foredraft.edge.estimates import Snapshot
from foredraft.edge.path_probability import token_moments

SURE: Final = 3.0
"""Standard deviations from which on a deadline counts as kept: 999 of 1,000."""

LEAST_SPREAD_S: Final = 1e-3


class Left(NamedTuple):
    """What is left: ``tokens`` that the text may still have, and ``seconds`` to its deadline."""

    tokens: int
    seconds: float


class Next(NamedTuple):
    """What the cloud does next: a pass of ``nodes`` after waiting for ``steps`` draft steps; 0 and 0: alone."""

    nodes: int
    steps: int


def sureness(seen: Snapshot, option: Next, left: Left) -> float:
    """How many standard deviations before the deadline the text is complete on average; negative: after it."""
    first_s, tokens, variance = seen.pass_s(0), 1.0, 0.0
    if option.steps:
        tokens, spread = token_moments(seen.ranks, option.nodes, min(option.steps, left.tokens - 1))
        first_s = seen.round_trip_s + option.steps * seen.draft_step_s + seen.pass_s(option.nodes)
        variance = seen.round_trip_spread_s**2 + spread * seen.token_s**2
    rest = max(0.0, left.tokens - tokens)
    way_down_s = seen.round_trip_s / 2
    mean_s = first_s + rest * seen.token_s + way_down_s
    variance += rest * seen.token_spread_s**2 + seen.round_trip_spread_s**2 / 2
    return (left.seconds - mean_s) / max(LEAST_SPREAD_S, math.sqrt(variance))


def surest(seen: Snapshot, widths: Iterable[int], most_steps: int, left: Left) -> Next:
    """Of passes of these widths, after at most so many steps, and of one alone: what makes it most probable."""
    steps = range(1, min(most_steps, left.tokens - 1) + 1)
    options = [Next(0, 0), *(Next(nodes, count) for nodes in widths if nodes for count in steps)]
    return max(options, key=lambda option: sureness(seen, option, left))
