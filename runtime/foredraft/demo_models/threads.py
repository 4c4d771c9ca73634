"""How many threads a step should use on a machine that others use too.

Two threads that share work wait for each other at every operation, so on a busy machine two can be slower than one.
What is faster changes while one trains, so it is tried again every so often.
"""

from __future__ import annotations

import torch

PROBE_EVERY_STEPS = 60
"""Steps between two trials of the other thread counts."""

PROBE_STEPS = 2
"""Steps of one trial, of which the last is measured."""


class ThreadChooser:
    """Sets torch's thread count before each step: mostly the fastest one, now and then another to compare."""

    def __init__(self, most: int) -> None:
        """`most` is the largest count to try, at least 1."""
        self._counts = list(range(1, most + 1))
        self._durations_s = dict.fromkeys(self._counts, 0.0)
        self.current = most

    def before_step(self, step: int) -> None:
        """Choose the count for this step and tell torch."""
        phase, rest = divmod(step % PROBE_EVERY_STEPS, PROBE_STEPS)
        if phase < len(self._counts):
            self.current = self._counts[phase]
        elif rest == 0:
            self.current = min(self._counts, key=lambda count: self._durations_s[count])
        torch.set_num_threads(self.current)

    def after_step(self, duration_s: float) -> None:
        """Remember what the step took."""
        self._durations_s[self.current] = duration_s
