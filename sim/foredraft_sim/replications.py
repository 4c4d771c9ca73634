"""All replications of a scenario, in several processes where that pays; the results are the same."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from foredraft.errors import ForedraftError
from foredraft_sim.emulation import replicate
from foredraft_sim.errors import ScenarioError
from foredraft_sim.finished import Replication
from foredraft_sim.scenario import Scenario
from foredraft_sim.scenario_file import ModelPair, most_of

WORTH_TOKENS: Final = 4000
"""Processes take about a second to start; about a thousand tokens are simulated in one."""

Done = Callable[[int], None]
"""Told how many replications are done."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error that comes from another process."""

    message: str


def replicate_all(
    scenario: Scenario,
    policies: Sequence[str],
    seeds: Sequence[int],
    *,
    log: bool = False,
    processes: int | None = None,
    on_done: Done | None = None,
) -> list[Replication]:
    """Each policy with each seed, in that order. Raises ScenarioError, ModelError.

    ``processes``: how many at a time; None: as many as there are cores, if there is enough to do.
    Real models stay in this process: each would load them again.
    """
    jobs = [(policy, seed) for policy in policies for seed in seeds]
    for policy in policies:
        scenario.policy(policy)
    tell = on_done or (lambda count: None)
    workers = min(worthwhile_processes(scenario, len(jobs)) if processes is None else processes, len(jobs))
    if workers > 1:
        return _in_processes(scenario, jobs, workers, log, tell)
    results: list[Replication] = []
    for policy, seed in jobs:
        results.append(replicate(scenario, policy, seed, log=log))
        tell(len(results))
    return results


def worthwhile_processes(scenario: Scenario, jobs: int) -> int:
    """How many processes are worth their start."""
    tokens = jobs * scenario.workload.requests * most_of(scenario.workload.new_tokens)
    if isinstance(scenario.pair, ModelPair) or tokens < WORTH_TOKENS:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_processes(
    scenario: Scenario, jobs: Sequence[tuple[str, int]], workers: int, log: bool, tell: Done
) -> list[Replication]:
    results: list[Replication] = []
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (portable(scenario),)) as pool:
        running: list[Future[Replication | _Failure]] = [pool.submit(_one, *job, log) for job in jobs]
        try:
            for future in running:
                result = future.result()
                if isinstance(result, _Failure):
                    raise ScenarioError(result.message)
                results.append(result)
                tell(len(results))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


_scenario: Scenario
"""In a worker process: what it works on."""


def _begin(scenario: Scenario) -> None:
    global _scenario
    _scenario = scenario


def portable(scenario: Scenario) -> Scenario:
    """The scenario as it can travel to another process, which the read-only view of a profile's sources cannot."""
    carried = {name: getattr(scenario, name) for name in ("draft", "target", "link", "cloud_draft")}
    return replace(
        scenario,
        **{
            name: msgspec.structs.replace(profile, provenance=dict(profile.provenance))
            for name, profile in carried.items()
            if profile is not None
        },
    )


def _one(policy: str, seed: int, log: bool) -> Replication | _Failure:
    try:
        return replicate(_scenario, policy, seed, log=log)
    except ForedraftError as error:
        return _Failure(str(error))
