"""Whether what was drawn has the distribution that it should have."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

LEAST_EXPECTED = 5.0
"""Outcomes expected less often are counted together."""


def chi_square_excess(counts: Counter[Any], chances: Mapping[Any, float]) -> tuple[float, int]:
    """The statistic less its degrees of freedom, and these. What has no chance must not occur."""
    draws = counts.total()
    assert all(chances.get(outcome, 0.0) > 0.0 for outcome in counts), "something that has no chance occurred"
    rare = {outcome for outcome, chance in chances.items() if chance * draws < LEAST_EXPECTED}
    cells = [(counts[outcome], chance * draws) for outcome, chance in chances.items() if outcome not in rare]
    together = sum(chances[outcome] for outcome in rare) * draws
    if together >= LEAST_EXPECTED:
        cells.append((sum(counts[outcome] for outcome in rare), together))
    freedom = len(cells) - 1
    return sum((seen - wanted) ** 2 / wanted for seen, wanted in cells) - freedom, freedom


def follows(parts: Mapping[Any, tuple[Counter[Any], Mapping[Any, float]]]) -> bool:
    """Whether chi-square over all parts together is below its quantile at 0.999 (Wilson and Hilferty, 1931)."""
    found = [chi_square_excess(counts, chances) for counts, chances in parts.values() if counts.total() >= 20]
    freedom = sum(free for _, free in found)
    spread = 2.0 / (9.0 * freedom)
    most: float = freedom * (1.0 - spread + 3.0902 * spread**0.5) ** 3
    return sum(excess for excess, _ in found) + freedom < most
