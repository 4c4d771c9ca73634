"""How many texts were compared with the target alone, over all processes that run tests."""

from dataclasses import dataclass
from typing import Any

EPSILON = 1e-3
"""A margin below this is a tie: in fp32, logits of passes of different width differ by about 1e-5, which the
temperature divides."""


@dataclass
class Tally:
    """``compared`` texts, of which ``ties`` went another way where the oracle itself hardly knew."""

    compared: int = 0
    ties: int = 0

    def line(self) -> str:
        """For the end of a run."""
        return (
            f"lossless: {self.compared} texts compared with transformers, {self.ties} up to a margin below {EPSILON:g}"
        )


TALLY = Tally()
"""That of this process."""


def tell_controller(config: Any) -> None:
    """In a process that runs some of the tests: send the tally to the one that reports."""
    if hasattr(config, "workeroutput"):
        config.workeroutput["lossless"] = [TALLY.compared, TALLY.ties]


def hear_worker(node: Any) -> None:
    """In the process that reports: add what another one has counted."""
    compared, ties = getattr(node, "workeroutput", {}).get("lossless", (0, 0))
    TALLY.compared += compared
    TALLY.ties += ties
