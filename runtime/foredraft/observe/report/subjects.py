"""What the page compares: one policy each, with its figures. Seconds are seconds; per token where it says so."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final

from foredraft.errors import ConfigError
from foredraft.observe import aggregate as figures
from foredraft.observe.aggregate import TIMES, percentile

COUNTS: Final = tuple(name for name in figures.COUNTS if name not in ("prompt_tokens", "opening_bytes_up"))
COST: Final = "cost_usd_per_million_tokens"
ENERGY: Final = "edge_j_per_token"
RANKS: Final = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Exit:
    """What an exit said: of how many tokens, how many of them rightly, and how sure it was on average."""

    layer: int
    said: int
    right: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Subject:
    """One policy of one file.

    ``figures``: times are means over its texts, counts and busy seconds as the file has them.
    ``spread``: percentiles over texts, by metric. From records alone: ``parts``, seconds per token,
    which add up to the time per token; ``chain``: per depth of a draft chain, how many tokens were
    verified there and how many accepted; ``along``: per stretch of the text, its first token, how many of
    its tokens the draft was asked about and how many it put first; ``gaps_s``: between commits, sorted.
    """

    name: str
    source: str
    kind: str
    texts: int
    figures: Mapping[str, float]
    spread: Mapping[str, Mapping[str, float]]
    parts: Mapping[str, float] = field(default_factory=dict)
    chain: Sequence[tuple[int, int]] = ()
    along: Sequence[tuple[int, int, int]] = ()
    exits: Sequence[Exit] = ()
    gaps_s: Sequence[float] = ()

    def per_token(self, name: str) -> float | None:
        """A count or busy seconds, per committed token."""
        return ratio(self.figures.get(name), self.figures.get("new_tokens"))

    @property
    def tokens_per_pass(self) -> float | None:
        """Committed tokens per target pass."""
        return ratio(self.figures.get("new_tokens"), self.figures.get("passes"))

    @property
    def acceptance(self) -> float | None:
        """Of the verified draft tokens, the share that was accepted."""
        return ratio(self.figures.get("accepted"), self.figures.get("drafted"))

    @property
    def hint_precision(self) -> float | None:
        """Of the hints, the share that came true."""
        return ratio(self.figures.get("hints_right"), self.figures.get("hints"))


@dataclass(frozen=True, slots=True)
class Promise:
    """A figure of a benchmark, with the bound that it must keep, if any."""

    name: str
    value: float
    unit: str
    bound: float | None
    at_least: bool


@dataclass(frozen=True, slots=True)
class Bench:
    """One part of ``bench policies``."""

    name: str
    says: str
    source: str
    promises: Sequence[Promise]
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Trial:
    """A policy that a study tried, with its metrics on the seeds of the search; ``held_out``: on others, if run there.

    A study's metrics go by their names there (``p50-tpot``, ``cost`` ...); less is better with all.
    """

    number: int
    policy: str
    metrics: Mapping[str, float]
    held_out: Mapping[str, float] | None = None

    @property
    def name(self) -> str:
        """The policy without its parameters."""
        first, *more = self.policy.split(":", 2)
        return f"{first}:{more[0]}" if more and "=" not in more[0] else first


@dataclass(frozen=True, slots=True)
class Study:
    """What ``tune`` found. ``trials``: all that could be run; ``front``: the best, by the first objective.

    ``defaults``: policies as they come. ``limits``: the most that a metric may be.
    """

    name: str
    source: str
    objectives: Sequence[str]
    limits: Mapping[str, float]
    units: Mapping[str, str]
    trials: Sequence[Trial]
    front: Sequence[Trial]
    defaults: Sequence[Trial]

    def holds(self, metrics: Mapping[str, float]) -> bool:
        """Whether all limits are held."""
        return all(metrics[name] <= most for name, most in self.limits.items())


@dataclass(frozen=True, slots=True)
class Source:
    """What a file holds. ``about``: what is worth knowing of it, in words; ``warnings``: of these the urgent ones."""

    name: str
    kind: str
    about: Sequence[str]
    warnings: Sequence[str] = ()
    subjects: Sequence[Subject] = ()
    benches: Sequence[Bench] = ()
    studies: Sequence[Study] = ()


def ratio(part: float | None, whole: float | None) -> float | None:
    """A share; None where there is nothing to share."""
    return part / whole if part is not None and whole else None


def number(value: Any, where: str) -> float:
    """A finite number out of a file. Raises ConfigError naming the place."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{where}: a number is missing ({value!r}); was the file written by another version?")
    return float(value)


def told_in(plain: Mapping[str, Any], where: str) -> dict[str, float]:
    """The times and counts that a file tells of a session. Raises ConfigError naming the place."""
    return {name: number(plain.get(name), f"{where}: {name}") for name in (*TIMES, *COUNTS)}


def pooled(sessions: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of the times and sums of the counts over several sessions."""
    means = {name: fmean(one[name] for one in sessions) for name in TIMES}
    return means | {name: sum(one[name] for one in sessions) for name in COUNTS}


def spread_of(sessions: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The percentiles of each time over several sessions."""
    return {
        name: {f"p{percent}": percentile([one[name] for one in sessions], percent) for percent in RANKS}
        for name in TIMES
    }
