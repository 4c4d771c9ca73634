"""Figures over sessions: which fields of a report are times and which are counts, and percentiles."""

import math
from collections.abc import Sequence
from typing import Final

TIMES: Final = ("ttft_s", "tpot_s", "e2e_s")
"""Fields of ``edge.session_report.SessionReport`` that are averaged over sessions."""

COUNTS: Final = (
    "prompt_tokens",
    "new_tokens",
    "passes",
    "drafted",
    "accepted",
    "hints",
    "hints_right",
    "predraft_hits",
    "predraft_misses",
    "bytes_up",
    "bytes_down",
    "opening_bytes_up",
    "target_s",
    "queue_s",
    "draft_s",
    "reconnects",
)
"""Fields that are added up."""


def percentile(samples: Sequence[float], percent: float) -> float:
    """Linear between the order statistics, as numpy's default."""
    ordered = sorted(samples)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
