"""What a run of the recipe is asked for."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Plan:
    """What to make, where, from which seed, and in how long."""

    work: Path
    out: Path
    minutes: float = 80.0
    seed: int = 1
    threads: int = 2
    samples: int = 120
    note: str = ""
