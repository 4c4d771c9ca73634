"""What is searched: policies, their parameters, what to minimise, what to keep under a limit, by which seeds.

Every candidate meets the same seeds, and so the same luck: what differs between two is the policy.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import msgspec

from foredraft.errors import ConfigError
from foredraft.policies.parameters import Number, default_of, tunable, with_parameters
from foredraft.version import __version__
from foredraft_sim.scenario.packing import files_of
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.tune.metrics import metrics_of

MOST_COUNTED: Final = 100_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy that was tried: its specification and metrics; or why it could not be run to its end."""

    number: int
    policy: str
    metrics: Mapping[str, float]
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for. ``limits``: by metric, the most that it may be."""

    scenario: Scenario
    policies: tuple[str, ...]
    objectives: tuple[str, ...]
    limits: Mapping[str, float]
    seeds: tuple[int, ...]

    def suggested(self, trial: Any) -> str:
        """The specification that an Optuna trial suggests."""
        policy = self.policies[0]
        if len(self.policies) > 1:
            policy = trial.suggest_categorical(POLICY, self.policies)
        values: dict[str, Number] = {}
        for one in tunable(policy):
            name = key(policy, one.name)
            if one.whole:
                value = trial.suggest_int(name, one.least, one.most, step=int(one.step) or 1, log=one.log)
            else:
                value = trial.suggest_float(name, one.least, one.most, step=float(one.step) or None, log=one.log)
            values[one.name] = one.said(value)
        return with_parameters(policy, values)

    def defaults(self) -> list[dict[str, Any]]:
        """Each policy as it comes, as the parameters of a trial."""
        return [
            self._point(policy, {one.name: default_of(policy, one) for one in tunable(policy)})
            for policy in self.policies
        ]

    def default_specs(self) -> list[str]:
        """The same as specifications."""
        return [
            with_parameters(policy, {one.name: one.said(default_of(policy, one)) for one in tunable(policy)})
            for policy in self.policies
        ]

    def planned(self, most: int) -> list[str]:
        """What is tried first, whatever comes of it: all candidates where ``most`` is enough, else each as it comes."""
        from optuna.trial import FixedTrial

        points = self.points(most)
        if points is None:
            return self.default_specs()
        return [self.suggested(FixedTrial(point)) for point in points]

    def points(self, most: int) -> list[dict[str, Any]] | None:
        """All candidates there are, as the parameters of trials; None where they are more than ``most``."""
        if (self.count() or most + 1) > most:
            return None
        found = []
        for policy in self.policies:
            declared = tunable(policy)
            for values in product(*(one.values() for one in declared)):
                names = (one.name for one in declared)
                found.append(self._point(policy, dict(zip(names, values, strict=True))))
        return found

    def count(self) -> int | None:
        """How many candidates there are; None where they cannot be counted, or are very many."""
        total = 0
        for policy in self.policies:
            here = 1
            for one in tunable(policy):
                here *= one.count() or MOST_COUNTED
            total += here
        return total if total < MOST_COUNTED else None

    def _point(self, policy: str, values: Mapping[str, Number]) -> dict[str, Any]:
        named = {POLICY: policy} if len(self.policies) > 1 else {}
        return named | {key(policy, name): value for name, value in values.items()}

    def measure(self, policy: str) -> dict[str, float]:
        """The metrics of one policy over the seeds. Raises ScenarioError where it cannot be run to its end."""
        return metrics_of(self.scenario, [replicate(self.scenario, policy, seed) for seed in self.seeds])

    def excess(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """By how much each limit is missed, as a share of it; 0 or less where it is held."""
        return {name: metrics[name] / most - 1.0 for name, most in self.limits.items()}

    def holds(self, metrics: Mapping[str, float]) -> bool:
        """Whether all limits are held."""
        return all(share <= 0.0 for share in self.excess(metrics).values())

    def front(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that hold the limits and that no other betters in all objectives; best in the first one first."""
        fit = [one for one in candidates if not one.failure and self.holds(one.metrics)]
        fit.sort(key=lambda one: (self.values(one), one.number))
        kept: list[Candidate] = []
        for one in fit:
            values = self.values(one)
            if not any(all(a <= b for a, b in zip(self.values(best), values, strict=True)) for best in kept):
                kept.append(one)
        return kept

    def values(self, one: Candidate) -> tuple[float, ...]:
        """Its objectives."""
        return tuple(one.metrics[name] for name in self.objectives)

    def nearest(self, candidates: Sequence[Candidate]) -> Candidate | None:
        """The candidate that misses the limits by least."""
        run = [one for one in candidates if not one.failure]
        return min(run, key=lambda one: max(self.excess(one.metrics).values(), default=0.0), default=None)

    def described(self) -> dict[str, Any]:
        """What must be the same for results to be comparable; plain, as JSON has it."""
        return {
            "foredraft": __version__,
            "scenario": digest(self.scenario),
            "policies": list(self.policies),
            "objectives": list(self.objectives),
            "limits": dict(self.limits),
            "seeds": list(self.seeds),
        }


POLICY: Final = "policy"


def key(policy: str, parameter: str) -> str:
    """The name of a policy's parameter within a study."""
    return f"{policy} {parameter}"


def digest(scenario: Scenario) -> str:
    """Of everything in a scenario that figures depend on, wherever its files lie."""
    bare, file = msgspec.structs.replace, scenario.file
    file = bare(file, title="", notes="", policies=("",), seeds=1)
    named = (scenario.draft, scenario.target, scenario.link, scenario.cloud_draft)
    profiles = [bare(one, provenance={}, path=None) for one in named if one is not None]
    said = hashlib.sha256(msgspec.json.encode([file, scenario.pair, *profiles], order="sorted"))
    texts = [
        scenario.path.parent / name for name in (scenario.workload.prompts_file, scenario.workload.traffic) if name
    ]
    for path in (*files_of(scenario), *texts):
        try:
            said.update(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{scenario.path}: {path} cannot be read: {error.strerror or error}") from error
    return said.hexdigest()[:16]
