"""A link profile from a measurement: least delay, jitter and its shape, rates, and loss where it shows.

Only round trips can be measured without comparing clocks, so each way gets half. The jitter of a
round trip is the sum of two ways' jitters; for each shape that a profile knows, quantiles of such a
sum of mean 1 each are known, and the measured quantiles are a line in them: twice the delay, plus
the jitter's mean times the sum's. The shape with the best line is taken.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from random import Random
from statistics import fmean, median
from typing import Any, Final, Literal, get_args

from foredraft.errors import ConfigError
from foredraft.links.probing import CHUNK_BYTES, ECHO_BYTES, LinkSamples
from foredraft.links.shaping import percentile
from foredraft.profiles.schema import Direction, LinkProfile, LinkRange, Loss, Provenance, Setup

Shape = Literal["uniform", "exponential", "lognormal"]

LEAST_TIMEOUT_S: Final = 0.18
"""TCP waits at least about 0.2 s before it sends again."""

_QUANTILES: Final = tuple(step / 100 for step in range(2, 96))
_DRAWS: Final = 20_000
_SIGMA: Final = math.sqrt(math.log(2.0))  # a lognormal with a coefficient of variation of 1
_UNLIMITED_BPS: Final = 2e9  # a rate beyond this is the machine's own, not a link's


@dataclass(frozen=True, slots=True)
class MeasuredLink:
    """A profile, and what it rests on. ``suspects_s``: round trips that look like retransmissions."""

    profile: LinkProfile
    samples: LinkSamples
    suspects_s: tuple[float, ...]

    def figures(self) -> dict[str, Any]:
        """What was measured, by name; the JSON form."""
        trips_s = sorted(self.samples.round_trips_s)
        return {
            "server": self.samples.server,
            "seconds": self.samples.seconds,
            "echoes": len(trips_s),
            "round_trip_s": {
                "min": trips_s[0],
                **{f"p{percent}": percentile(trips_s, percent / 100) for percent in (10, 50, 90, 99)},
                "max": trips_s[-1],
                "mean": fmean(trips_s),
            },
            "jitter_s": self.profile.up.jitter_s,
            "jitter_shape": self.profile.up.jitter_shape,
            "up_bps": list(self.samples.up_bps),
            "down_bps": list(self.samples.down_bps),
            "suspected_retransmissions_s": list(self.suspects_s),
            "connect_s": list(self.samples.connects_s),
            "round_trips_s": list(self.samples.round_trips_s),
        }

    def lines(self) -> list[str]:
        """For people."""
        said, trip = self.figures(), self.figures()["round_trip_s"]
        ms = {name: f"{value * 1e3:.2f}" for name, value in trip.items()}
        suspects = f"{len(self.suspects_s)} of {said['echoes']} echoes" if self.suspects_s else "none seen"
        return [
            f"{self.profile.name}: {self.samples.server}, measured for {self.samples.seconds:.1f} s",
            f"round trip, ms: {ms['min']} min, {ms['p50']} median, {ms['p90']} p90, {ms['p99']} p99, {ms['max']} max",
            f"{said['echoes']} echoes of {ECHO_BYTES} bytes, one after another",
            f"jitter each way: mean {said['jitter_s'] * 1e3:.3f} ms, {said['jitter_shape']}",
            f"rate up: {_rate(self.profile.up.rate_bps)}; down: {_rate(self.profile.down.rate_bps)}",
            f"retransmissions (echoes later by {LEAST_TIMEOUT_S:g} s and more): {suspects}",
        ]


def measured_link(samples: LinkSamples, name: str) -> MeasuredLink:
    """The profile that the samples say. Raises ConfigError where they are too few."""
    trips_s = sorted(samples.round_trips_s)
    if len(trips_s) < 5:
        raise ConfigError(f"{len(trips_s)} round trips are too few to know a link by; give more --seconds")
    middle_s = median(trips_s)
    suspects_s = tuple(trip_s for trip_s in trips_s if trip_s > middle_s + max(LEAST_TIMEOUT_S, 3 * _spread_s(trips_s)))
    usual_s = trips_s[: len(trips_s) - len(suspects_s)]
    least_s, jitter_s, shape = fit_jitter(usual_s)
    how = f"{len(trips_s)} echoes over {samples.seconds:.0f} s, {datetime.now(UTC).date()}"
    halves = Provenance("derived", f"half of the round trip each way, from {how}")
    rated = Provenance("measured", f"streams in messages of {CHUNK_BYTES} bytes; {how}")
    provenance = {"range.message_bytes": Provenance("measured", f"sizes of the messages sent; {how}")}
    ways = {}
    for way, rates_bps in (("up", samples.up_bps), ("down", samples.down_bps)):
        rate_bps = _believed(rates_bps)
        provenance |= {f"{way}.delay_s": halves, f"{way}.jitter_s": halves}
        if rate_bps is not None:
            provenance[f"{way}.rate_bps"] = rated
        ways[way] = Direction(
            delay_s=round(least_s / 2, 7), jitter_s=round(jitter_s, 7), jitter_shape=shape, rate_bps=rate_bps
        )
    loss = _loss(suspects_s, middle_s, len(trips_s))
    if loss is not None:
        seen = f"{len(suspects_s)} of {len(trips_s)} echoes were later by a retransmission timeout; {how}"
        provenance |= {f"loss.{key}": Provenance("derived", seen) for key in ("good_loss", "bad_loss", "rto_s")}
        guessed = Provenance("assumed", "bursts cannot be told from so few losses: one probability in both states")
        provenance |= {f"loss.{key}": guessed for key in ("good_s", "bad_s")}
        provenance["loss.rto_max_s"] = Provenance("published", "RFC 6298, section 2.5: at least 60 seconds")
    # The least of few connections: the first one also loads what it needs.
    setup = Setup(round_trips=round(min(samples.connects_s) / middle_s, 3))
    provenance["setup.round_trips"] = Provenance("measured", f"time to connect over the median round trip; {how}")
    profile = LinkProfile(
        name=name,
        title=f"The way to {samples.server}, measured {datetime.now(UTC).date()}",
        notes=_NOTES,
        provenance=provenance,
        kind="link",
        up=ways["up"],
        down=ways["down"],
        loss=loss,
        setup=setup,
        range=LinkRange(message_bytes=(1, CHUNK_BYTES)),
    )
    return MeasuredLink(profile, samples, suspects_s)


_NOTES: Final = """\
Round trips are of messages over a WebSocket, both ends' libraries included. The two ways are taken to be alike:
clocks of two machines were not compared. Rates are of payload.
"""


def fit_jitter(round_trips_s: list[float]) -> tuple[float, float, Shape]:
    """Least round trip, mean jitter of each way, and the jitter's shape; ``round_trips_s`` in rising order."""
    measured = [_at(round_trips_s, share) for share in _QUANTILES]
    best: tuple[float, float, float, Shape] | None = None
    for shape in get_args(Shape):
        steps = _sum_quantiles(shape)
        slope, base = _line(steps, measured)
        error = sum((base + slope * step - at_s) ** 2 for step, at_s in zip(steps, measured, strict=True))
        if best is None or error < best[0]:
            best = error, base, slope, shape
    if best is None:
        raise ConfigError("no shape of jitter is known")
    _, base_s, jitter_s, shape = best
    return base_s, jitter_s, shape


def _line(steps: tuple[float, ...], measured: list[float]) -> tuple[float, float]:
    """Slope and base of the least squares line; neither is negative."""
    middle, level = fmean(steps), fmean(measured)
    across = sum((step - middle) * (at_s - level) for step, at_s in zip(steps, measured, strict=True))
    slope = max(0.0, across / sum((step - middle) ** 2 for step in steps))
    base = level - slope * middle
    if base >= 0.0:
        return slope, base
    return sum(s * m for s, m in zip(steps, measured, strict=True)) / sum(s * s for s in steps), 0.0


@lru_cache(maxsize=8)
def _sum_quantiles(shape: Shape) -> tuple[float, ...]:
    """Quantiles of the sum of two jitters of mean 1."""
    draw = Random(f"jitter {shape}")
    shapes: dict[Shape, Callable[[], float]] = {
        "uniform": lambda: 2.0 * draw.random(),
        "exponential": lambda: draw.expovariate(1.0),
        "lognormal": lambda: draw.lognormvariate(-(_SIGMA**2) / 2.0, _SIGMA),
    }
    one = shapes[shape]
    sums = sorted(one() + one() for _ in range(_DRAWS))
    return tuple(_at(sums, share) for share in _QUANTILES)


def _at(ordered: list[float], share: float) -> float:
    """The quantile, linear between neighbours."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _spread_s(ordered: list[float]) -> float:
    """From the 10th to the 90th percentile."""
    return _at(ordered, 0.9) - _at(ordered, 0.1)


def _believed(rates_bps: tuple[float, ...]) -> float | None:
    """The rate of the largest transfer; None where it is so high that no link is seen in it."""
    if not rates_bps or rates_bps[-1] >= _UNLIMITED_BPS:
        return None
    return float(f"{max(rates_bps[-1], 1e3):.4g}")


def _loss(suspects_s: tuple[float, ...], middle_s: float, echoes: int) -> Loss | None:
    """Both directions lose alike, so each loses half of what a round trip does."""
    if not suspects_s:
        return None
    lost = float(f"{len(suspects_s) / echoes / 2:.3g}")
    rto_s = round(median(suspects_s) - middle_s, 4)
    return Loss(good_s=1.0, bad_s=1.0, good_loss=lost, bad_loss=lost, rto_s=min(rto_s, 60.0), rto_max_s=60.0)


def _rate(rate_bps: float | None) -> str:
    return "no limit seen" if rate_bps is None else f"{rate_bps / 1e6:.3g} Mbit/s"
