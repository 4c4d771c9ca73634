"""What a validation found: errors per metric, rankings per link, and what of the targets is missed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from foredraft_sim.validate.calibrate import Correction
from foredraft_sim.validate.sessions import Session
from foredraft_sim.validate.stats import Errors, Ranking, errors_of, ks_distance, ranking_of

METRICS: Final = {"ttft_s": "time to first token", "tpot_s": "time per output token", "e2e_s": "end to end"}
JUDGED: Final = ("tpot_s", "e2e_s")
MOST_MEDIAN: Final = 0.05
MOST_P99: Final = 0.10
RANKED_BY: Final = "e2e_s"


@dataclass(frozen=True, slots=True)
class Cell:
    """One policy over one link, by one metric. ``ks``: the distance between the two distributions."""

    way: str
    policy: str
    metric: str
    real_mean: float
    simulated_mean: float
    errors: Errors
    ks: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that was compared. ``errors`` and ``ks``: by metric, all sessions together.

    ``ks`` of all sessions together is the mean over the cells: sessions of different policies are
    different distributions. ``repeated``: by metric, how far the next fastest run of the same real session is from
    the one that counts: no error much below it says anything; ``chance``: the same of the simulated ones. ``replayed``:
    the errors of single runs that were simulated with the durations of their own calls.
    """

    sessions: int
    errors: dict[str, Errors]
    ks: dict[str, float]
    repeated: dict[str, Errors]
    chance: dict[str, Errors]
    replayed: dict[str, Errors]
    cells: tuple[Cell, ...]
    rankings: dict[str, Ranking]
    texts_differ: int
    correction: Correction

    def missed(self) -> list[str]:
        """Which targets are missed, in words."""
        said, unsteady = [], self.unsteady()
        for metric in JUDGED:
            found, name = self.errors[metric], METRICS[metric]
            if found.p50 > MOST_MEDIAN:
                said.append(f"{name}: median error {found.p50:.1%}, more than {MOST_MEDIAN:.0%}")
            judged, which = (self.replayed[metric], " of replayed sessions") if metric in unsteady else (found, "")
            if judged.p99 > MOST_P99:
                said.append(f"{name}: p99 error {judged.p99:.1%}{which}, more than {MOST_P99:.0%}")
        for way, ranking in self.rankings.items():
            for one, other in ranking.swapped:
                said.append(f"ranking over {way}: really {one} is faster than {other}, simulated it is not")
        if self.texts_differ:
            said.append(f"{self.texts_differ} of {self.sessions} simulated texts differ from the real ones")
        return said

    def unsteady(self) -> dict[str, float]:
        """Metrics whose p99 is above the target and says nothing of the simulation, with how much runs differ there.

        The two fastest runs of one real session differ by more than it, and by more than the simulation's chance makes
        them: the target is for an idle machine, and this one was not. Then the p99 of replayed sessions is judged.
        """
        return {
            metric: differ
            for metric in JUDGED
            if self.replayed
            and self.errors[metric].p99 > MOST_P99
            and (differ := _p99(self.repeated, metric)) > max(self.errors[metric].p99, _p99(self.chance, metric))
        }

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        missed, unsteady = self.missed(), self.unsteady()
        kept = {way: ranking.kept for way, ranking in self.rankings.items()}
        return asdict(self) | {
            "missed": missed,
            "p99_judged_by_replays": unsteady,
            "ranking_kept": kept,
            "targets": targets(),
        }


def _p99(errors: Mapping[str, Errors], metric: str) -> float:
    return errors[metric].p99 if metric in errors else 0.0


def targets() -> dict[str, float]:
    """What is aimed at, on an idle machine of two cores."""
    return {"median_error": MOST_MEDIAN, "p99_error": MOST_P99}


def verdict_of(
    real: Sequence[Session],
    simulated: Sequence[Session],
    correction: Correction,
    repeats: Sequence["Pair"] = (),
    simulated_repeats: Sequence["Pair"] = (),
    replayed: Sequence["Pair"] = (),
) -> Verdict:
    """Compare sessions, each with its own twin; ``repeats``: those that count, each with its next fastest run.

    Raises ValueError where a session has no twin.
    """
    pairs = _paired(real, simulated)
    cells = _cells(pairs)
    return Verdict(
        sessions=len(pairs),
        errors=_errors(pairs),
        repeated=_errors(repeats) if repeats else {},
        chance=_errors(simulated_repeats) if simulated_repeats else {},
        replayed=_errors(replayed) if replayed else {},
        ks={
            metric: sum(found) / len(found)
            for metric in METRICS
            for found in [[cell.ks for cell in cells if cell.metric == metric]]
        },
        cells=tuple(cells),
        rankings={
            way: ranking_of(_by_policy(pairs, way, 0), _by_policy(pairs, way, 1))
            for way in dict.fromkeys(one.way for one, _ in pairs)
        },
        texts_differ=sum(a.tokens != b.tokens for a, b in pairs),
        correction=correction,
    )


Pair = tuple[Session, Session]


def _paired(ones: Sequence[Session], others: Sequence[Session]) -> list[Pair]:
    twins = {(one.way, one.policy, one.prompt): one for one in others}
    try:
        return [(one, twins[one.way, one.policy, one.prompt]) for one in ones]
    except KeyError as error:
        raise ValueError(f"no session to compare with for {error.args[0]}") from error


def _errors(pairs: Sequence[Pair]) -> dict[str, Errors]:
    return {
        metric: errors_of([getattr(one, metric) for one, _ in pairs], [getattr(other, metric) for _, other in pairs])
        for metric in METRICS
    }


def _by_policy(pairs: Sequence[Pair], way: str, side: int) -> dict[str, list[float]]:
    """What is ranked, of the real (0) or the simulated (1) sessions over a link, in order of their prompts."""
    found: dict[str, list[float]] = {}
    for pair in sorted(pairs, key=lambda pair: pair[0].prompt):
        if pair[0].way == way:
            found.setdefault(pair[0].policy, []).append(getattr(pair[side], RANKED_BY))
    return found


def _cells(pairs: Sequence[Pair]) -> list[Cell]:
    cells = []
    for way, policy in dict.fromkeys((one.way, one.policy) for one, _ in pairs):
        own = [pair for pair in pairs if (pair[0].way, pair[0].policy) == (way, policy)]
        for metric in METRICS:
            theirs, ours = ([getattr(pair[side], metric) for pair in own] for side in (0, 1))
            cells.append(
                Cell(
                    way,
                    policy,
                    metric,
                    sum(theirs) / len(theirs),
                    sum(ours) / len(ours),
                    errors_of(theirs, ours),
                    ks_distance(theirs, ours),
                )
            )
    return cells
