"""All replications of a scenario, in several processes where that pays; the results are the same."""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from foredraft.errors import ForedraftError
from foredraft_sim.emulation import Replication, replicate
from foredraft_sim.errors import ScenarioError
from foredraft_sim.scenario import ModelPair, Scenario

WORTH_S: Final = 3.0
"""Processes take about a second to start: less work than this is done in this one."""

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

    ``processes``: how many at a time; None: as many as there are cores, if the first replication
    shows that it is worth it. Real models stay in this process: each would load them again.
    """
    jobs = [(policy, seed) for policy in policies for seed in seeds]
    for policy in policies:
        scenario.policy(policy)
    tell = on_done or (lambda count: None)
    results: list[Replication] = []
    began_s = time.perf_counter()
    workers = min(_cores(scenario) if processes is None else processes, len(jobs))
    while len(results) < len(jobs):
        left = len(jobs) - len(results)
        taken_s = time.perf_counter() - began_s
        worth = processes is not None or (len(results) and taken_s / len(results) * left > WORTH_S)
        if workers > 1 and worth:
            return results + _in_processes(scenario, jobs[len(results) :], workers, log, tell, len(results))
        results.append(replicate(scenario, *jobs[len(results)], log=log))
        tell(len(results))
    return results


def _cores(scenario: Scenario) -> int:
    return 1 if isinstance(scenario.pair, ModelPair) else len(os.sched_getaffinity(0))


def _in_processes(
    scenario: Scenario, jobs: Sequence[tuple[str, int]], workers: int, log: bool, tell: Done, done: int
) -> list[Replication]:
    results: list[Replication] = []
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _begin, (_without_sources(scenario),)
    ) as pool:
        running: list[Future[Replication | _Failure]] = [pool.submit(_one, *job, log) for job in jobs]
        try:
            for future in running:
                result = future.result()
                if isinstance(result, _Failure):
                    raise ScenarioError(result.message)
                results.append(result)
                tell(done + len(results))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


_scenario: Scenario
"""In a worker process: what it works on."""


def _begin(scenario: Scenario) -> None:
    global _scenario
    _scenario = scenario


def _without_sources(scenario: Scenario) -> Scenario:
    """The scenario as it travels to another process: where its numbers come from stays here."""
    bare = msgspec.structs.replace
    return replace(
        scenario,
        draft=bare(scenario.draft, provenance={}),
        target=bare(scenario.target, provenance={}),
        link=bare(scenario.link, provenance={}),
    )


def _one(policy: str, seed: int, log: bool) -> Replication | _Failure:
    try:
        return replicate(_scenario, policy, seed, log=log)
    except ForedraftError as error:
        return _Failure(str(error))
