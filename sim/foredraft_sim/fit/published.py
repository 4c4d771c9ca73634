"""A pair of published acceptances by position in the draft: how often the 1st, 2nd, ... drafted token was accepted.

Where the later rates are high beside the first, right tokens come in runs: after a right one the draft is right more
often than after a wrong one. Two numbers say that, and both are in the rates: a round begins behind a token that the
draft had wrong, unless all of the round before was accepted.
"""

from collections.abc import Sequence
from itertools import pairwise

from foredraft.errors import ConfigError
from foredraft_sim.tokens.fitted import FittedPair, Outcome, Topic


def rates_in(text: str) -> list[float]:
    """The rates in ``0.74,0.54``. Raises ConfigError for what are none."""
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or not all(0.0 < one < 1.0 for one in rates) or any(b > a for a, b in pairwise(rates)):
        raise ConfigError(
            f"--accepted {text!r}: write how often the 1st, 2nd, ... drafted token was accepted, each between 0 and 1 "
            "and none above the one before: 0.74,0.54,0.41 (rates among those whose predecessor was accepted: multiply)"
        )
    return rates


def published_pair(accepted: Sequence[float], source: str, layers: int) -> FittedPair:
    """The pair that shows these rates. Nothing is known of second choices, nor of exits: those win nothing."""
    wrong, right = after(accepted)
    to_wrong, to_right = (1.0, 0.0), (0.0, 1.0)
    topic = Topic(
        share=1.0,
        states=(_state(wrong), _state(right)),
        after_wrong=(to_wrong, to_wrong),
        after_right=(to_right, to_right),
        head=(to_wrong,),
    )
    return FittedPair(topics=(topic,), layers=layers, source=source)


def after(accepted: Sequence[float]) -> tuple[float, float]:
    """How often the draft is right after a wrong token, and after a right one."""
    first, *later = accepted
    right = sum(later) / sum(accepted[:-1]) if later else first
    whole = accepted[-1]  # rounds of which all was accepted; the bonus token after them is right as often as others
    wrong = (first - whole * right**2) / (1.0 - whole * right)
    return min(1.0, max(0.0, wrong)), right


def shown(accepted: Sequence[float]) -> list[float]:
    """The rates that the pair shows in the place of the published ones."""
    _, right = after(accepted)
    return [accepted[0] * right**depth for depth in range(len(accepted))]


def _state(right: float) -> tuple[Outcome, ...]:
    right = round(right, 4)
    outcomes = (Outcome(right, 0, (right,)), Outcome(round(1.0 - right, 4), -1, (right,)))
    return tuple(one for one in outcomes if one.weight > 0.0)
