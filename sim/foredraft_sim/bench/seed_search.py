"""Which machines are consistent with what the seed paper claims for a Jetson Nano and an A100?

Nothing of that machine is published but two results: up to 35% lower latency than the cloud alone,
and a further 11% by preemptive drafting (arXiv 2505.21594). The rest lies in brackets: the draft
step and the target pass (figures of similar runs), the acceptance (Spec-Bench and EAGLE-3, inverted)
and the round trip. Closed forms over a grid of all of them say which points could give both.

    synchronous round  = gamma * t_d + rtt + T_v,  giving (1 - a^(gamma + 1)) / (1 - a) tokens
    preemption saves at most  min(gamma * t_d, (1 - first exit) * T_v)  of a round, if every hint were right
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

Baseline = Literal["streamed", "one round trip per token"]
Prediction = Literal["35% contains the 11%", "11% comes on top of the 35%"]

BASELINES: Final[tuple[Baseline, ...]] = ("streamed", "one round trip per token")
READINGS: Final[tuple[Prediction, ...]] = ("35% contains the 11%", "11% comes on top of the 35%")

LOWER, FURTHER = 0.35, 0.11
TOLERANCE: Final = 0.01
"""How far from 0.35 a point of the grid may be and still count."""

FIRST_EXIT: Final = 0.25
"""Assumed: the earliest hint leaves after a quarter of the pass."""

DRAFT_STEPS_MS: Final = (5.0, 6.0, 8.0, 10.0, 13.0, 16.0, 20.0, 26.0, 32.0)
PASSES_MS: Final = (9.5, 12.0, 15.0, 18.0, 22.0, 26.0, 30.0)
ROUND_TRIPS_MS: Final = (1.0, 2.0, 4.0, 7.0, 10.0, 15.0, 20.0, 28.0, 44.0, 66.0, 100.0, 150.0)
ACCEPTANCES: Final = (0.51, 0.54, 0.57, 0.60, 0.63, 0.66)
GAMMAS: Final = (1, 2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class Machine:
    """One point of the brackets."""

    draft_step_ms: float
    pass_ms: float
    round_trip_ms: float
    acceptance: float
    gamma: int

    @property
    def tokens(self) -> float:
        """Tokens per pass, acceptance being independent."""
        return (1 - self.acceptance ** (self.gamma + 1)) / (1 - self.acceptance)

    @property
    def round_ms(self) -> float:
        """A synchronous round."""
        return self.gamma * self.draft_step_ms + self.round_trip_ms + self.pass_ms

    def cloud_ms(self, baseline: Baseline) -> float:
        """The cloud alone, per token."""
        return self.pass_ms + (0.0 if baseline == "streamed" else self.round_trip_ms)

    @property
    def hits_needed(self) -> float:
        """Which share of the most that preemption can save it must save for the further 11%; above 1: impossible."""
        most_ms = min(self.gamma * self.draft_step_ms, (1 - FIRST_EXIT) * self.pass_ms)
        return FURTHER * self.round_ms / most_ms

    def lower(self, baseline: Baseline, prediction: Prediction) -> float:
        """How much lower than the cloud alone the latency is that the 35% speak of, by this reading."""
        preempted = 1 - FURTHER if prediction == "35% contains the 11%" else 1.0
        return 1 - preempted * self.round_ms / self.tokens / self.cloud_ms(baseline)


def machines() -> Iterator[Machine]:
    """All points of the brackets."""
    for values in product(DRAFT_STEPS_MS, PASSES_MS, ROUND_TRIPS_MS, ACCEPTANCES, GAMMAS):
        yield Machine(*values)


def consistent(baseline: Baseline, prediction: Prediction) -> list[Machine]:
    """The points that could give both claims, those that need the fewest right hints first."""
    found = [
        machine
        for machine in machines()
        if abs(machine.lower(baseline, prediction) - LOWER) <= TOLERANCE and machine.hits_needed <= 1.0
    ]
    return sorted(found, key=lambda machine: machine.hits_needed)
