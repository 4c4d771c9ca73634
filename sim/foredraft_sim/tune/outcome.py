"""What a study came to: the front, re-scored on seeds that it was not chosen by, and files of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from foredraft.policies.policy_file import Origin, policy_file_of, render_policy_file
from foredraft.version import __version__
from foredraft_sim.errors import ScenarioError
from foredraft_sim.scenario.replications import replicate_all
from foredraft_sim.tune.metrics import UNITS, metrics_of
from foredraft_sim.tune.search import Candidate, Search, digest
from foredraft_sim.workers.workers import Workers


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate with its metrics on the held-out seeds; None where it could not be run to its end there."""

    candidate: Candidate
    held_out: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A study's result. ``defaults``: the policies as they come, for comparison. ``lost``: trials tried again."""

    search: Search
    study: str
    candidates: Sequence[Candidate]
    front: Sequence[Scored]
    defaults: Sequence[Scored]
    held_out_seeds: tuple[int, ...]
    lost: int

    @property
    def best(self) -> Scored:
        """The one of the front that is best in the first objective."""
        return self.front[0]

    def said(self) -> dict[str, Any]:
        """As ``foredraft tune --json`` prints it."""
        return {
            "scenario": str(self.search.scenario.path),
            "title": self.search.scenario.file.title,
            "study": self.study,
            "objectives": list(self.search.objectives),
            "limits": dict(self.search.limits),
            "units": {name: UNITS[name] for name in self.best.candidate.metrics},
            "seeds": list(self.search.seeds),
            "held_out_seeds": list(self.held_out_seeds),
            "front": [_said(one) for one in self.front],
            "defaults": [_said(one) for one in self.defaults],
            "candidates": [asdict(one) for one in self.candidates],
            "failed": sum(bool(one.failure) for one in self.candidates),
            "lost": self.lost,
        }


def _said(one: Scored) -> dict[str, Any]:
    held_out = None if one.held_out is None else dict(one.held_out)
    return {"policy": one.candidate.policy, "metrics": dict(one.candidate.metrics), "held_out": held_out}


def outcome_of(
    search: Search,
    study: str,
    found: Sequence[Candidate],
    lost: int,
    held_out_seeds: tuple[int, ...],
    workers: Workers | None = None,
) -> Outcome:
    """The result. Raises ScenarioError where no candidate could be run, or none holds the limits."""
    front = search.front(found)
    if not front:
        raise ScenarioError(_why_none(search, found))
    best = {one.policy for one in front}
    plain = set(search.default_specs()) - best
    defaults = list({one.policy: one for one in found if one.policy in plain and not one.failure}.values())
    held_out = rescored(search, [one.policy for one in (*front, *defaults)], held_out_seeds, workers)
    return Outcome(
        search,
        study,
        found,
        [Scored(one, held_out[one.policy]) for one in front],
        [Scored(one, held_out[one.policy]) for one in defaults],
        held_out_seeds,
        lost,
    )


def _why_none(search: Search, found: Sequence[Candidate]) -> str:
    nearest = search.nearest(found)
    path = search.scenario.path
    if nearest is None:
        reason = found[0].failure if found else "none was tried"
        return f"{path}: none of {len(found)} candidates could be run to its end; the first: {reason}"
    limits = " and ".join(f"{name} <= {most:g}" for name, most in search.limits.items())
    got = ", ".join(f"{name} = {nearest.metrics[name]:.4g}" for name in search.limits)
    return (
        f"{path}: none of {len(found)} candidates keeps {limits}; the nearest is {nearest.policy} with {got}. "
        "Raise the limit, or give more --policy or --trials"
    )


def rescored(
    search: Search, policies: Sequence[str], seeds: tuple[int, ...], workers: Workers | None = None
) -> dict[str, Mapping[str, float] | None]:
    """Metrics of each policy on other seeds; None for one that could not be run to its end there."""
    scenario = search.scenario
    try:
        done = replicate_all(scenario, policies, seeds, workers=workers)
        return {policy: metrics_of(scenario, [one for one in done if one.policy == policy]) for policy in policies}
    except ScenarioError:
        if len(policies) == 1:
            return {policies[0]: None}
        return {
            policy: metrics for one in policies for policy, metrics in rescored(search, [one], seeds, workers).items()
        }


def policy_files(outcome: Outcome, folder: Path) -> dict[Path, bytes]:
    """A policy file for each of the front, ``policy.toml`` for the best; by path."""
    search = outcome.search
    files: dict[Path, bytes] = {}
    for number, one in enumerate(outcome.front, 1):
        origin = Origin(
            scenario=search.scenario.path.name,
            scenario_digest=digest(search.scenario),
            study=outcome.study,
            objectives=search.objectives,
            limits=dict(search.limits),
            trials=len(outcome.candidates),
            seeds=search.seeds,
            held_out_seeds=outcome.held_out_seeds,
            foredraft=__version__,
            optuna=version("optuna"),
            figures=_rounded(one.candidate.metrics),
            held_out=_rounded(one.held_out or {}),
        )
        file = policy_file_of(one.candidate.policy, origin)
        said = render_policy_file(file, "Written by foredraft tune; use it as --policy FILE.")
        files[folder / ("policy.toml" if number == 1 else f"policy-{number}.toml")] = said.encode()
    return files


def _rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.6g}") for name, value in metrics.items()}
