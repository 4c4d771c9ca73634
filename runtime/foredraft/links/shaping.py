"""What a shaped link does to bytes: when each chunk that came in may go out. Pure; no clock, no socket."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foredraft.errors import ConfigError, UnknownNameError

# Added to the delay, given jitter_s and a generator. As netem's: uniform within +-jitter, normal with
# that deviation; exponential has it as its mean, so delay_s is then the least delay.
DISTRIBUTIONS: dict[str, Callable[[random.Random, float], float]] = {
    "uniform": lambda rng, jitter_s: rng.uniform(-jitter_s, jitter_s),
    "normal": lambda rng, jitter_s: rng.gauss(0.0, jitter_s),
    "exponential": lambda rng, jitter_s: rng.expovariate(1.0 / jitter_s),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """One direction of a link: delay one way, jitter, and rate in bits per second (None: unlimited)."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    distribution: str = "uniform"
    rate_bps: float | None = None

    def __post_init__(self) -> None:
        for name in ("delay_s", "jitter_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value}; it must be zero or more seconds")
        if self.rate_bps is not None and not (math.isfinite(self.rate_bps) and self.rate_bps > 0):
            raise ConfigError(f"rate_bps is {self.rate_bps}; it must be above zero, or None for no limit")
        if self.distribution not in DISTRIBUTIONS:
            raise UnknownNameError("jitter distribution", self.distribution, DISTRIBUTIONS)


class Shaper:
    """One direction of a link, shared by all connections over it.

    A chunk waits until the line is free, takes bytes / rate on it, and arrives a delay later.
    Jitter varies the delay per chunk, but never the order within a connection: a late chunk
    holds up those behind it, as in TCP.
    """

    def __init__(self, shape: Shape, seed: str) -> None:
        self.shape = shape
        self._rng = random.Random(seed)
        self._line_free_s = 0.0

    def due_s(self, now_s: float, size_bytes: int, not_before_s: float) -> float:
        """When a chunk that comes in now goes out; ``not_before_s``: when the one before it does."""
        shape = self.shape
        sent_s = max(now_s, self._line_free_s)
        if shape.rate_bps is not None:
            sent_s += size_bytes * 8 / shape.rate_bps
            self._line_free_s = sent_s
        delay_s = shape.delay_s
        if shape.jitter_s:
            delay_s += DISTRIBUTIONS[shape.distribution](self._rng, shape.jitter_s)
        return max(sent_s + max(delay_s, 0.0), not_before_s)


@dataclass(frozen=True, slots=True)
class DirectionReport:
    """One direction as it was: ``delay`` from arrival to release, ``late`` beyond what was due."""

    chunks: int
    size_bytes: int
    delay_p50_s: float
    late_p50_s: float
    late_p99_s: float


@dataclass(frozen=True, slots=True)
class ProxyReport:
    """What a shaping proxy achieved. ``realtime``: whether the system gave it real-time scheduling."""

    up: DirectionReport
    down: DirectionReport
    realtime: bool

    @property
    def round_trip_s(self) -> float:
        """The median delays of both directions together."""
        return self.up.delay_p50_s + self.down.delay_p50_s

    def __str__(self) -> str:
        if not self.up.chunks and not self.down.chunks:
            return "emulated link: nothing went over it"
        ways = (("up", self.up), ("down", self.down))
        late = ", ".join(f"{name} {way.late_p50_s * 1e3:.3f} / {way.late_p99_s * 1e3:.3f} ms" for name, way in ways)
        caveat = "" if self.realtime else " (without real-time scheduling)"
        return (
            f"emulated link: round trip {self.round_trip_s * 1e3:.2f} ms achieved; "
            f"released late by p50 / p99: {late}{caveat}"
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the sorted values lie (nearest rank); 0 of none."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
