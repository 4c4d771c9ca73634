"""Replications of a scenario: one policy and one seed each, island by island, each island in a loop of its own.

All of them run in several processes where that pays, and so do the islands of one; the results are the same.
"""

import asyncio
import gc
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import msgspec

from foredraft.errors import ForedraftError
from foredraft_sim.errors import ScenarioError
from foredraft_sim.loop.event_loop import SimLoop
from foredraft_sim.scenario.emulation import NewPace, Run, arrivals, emulate
from foredraft_sim.scenario.finished import Replication
from foredraft_sim.scenario.islands import Island, IslandDone, everything, islands_of, joined, shares
from foredraft_sim.scenario.pairs import TokenSource, token_source
from foredraft_sim.scenario.quiet import collected, rare_collections
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.scenario_file import ModelPair

WORTH_TOKENS: Final = 4000
"""Processes take about a second to start; about a thousand tokens are simulated in one."""

Done = Callable[[int], None]
"""Told how many replications are done."""


def replicate(
    scenario: Scenario,
    policy: str,
    seed: int,
    *,
    log: bool = False,
    texts: bool = False,
    shuffle_seed: int | None = None,
    luck: int = 0,
    source: TokenSource | None = None,
    new_pace: NewPace | None = None,
) -> Replication:
    """Run ``policy`` with ``seed`` to the end. Raises ScenarioError, ModelError.

    ``log``: keep a record. ``texts``: keep the tokens. ``shuffle_seed``: run timers of one
    instant in another order; texts must not change by it. ``luck``: other numbers than 0 draw other jitter, losses and
    durations under the same tokens and arrivals. ``source``: what says the tokens in the
    place of the scenario's pair. ``new_pace``: what calls cost, where the profiles alone do not tell.
    """
    run = Run(scenario, policy, seed, source or token_source(scenario), log, texts, luck, new_pace)
    together = log or new_pace is not None  # one log has one order, and paces may be shared by all
    islands = [everything(scenario)] if together else islands_of(scenario)
    return joined(policy, seed, simulated(run, islands, shuffle_seed))


def simulated(run: Run, islands: Sequence[Island], shuffle_seed: int | None = None) -> list[IslandDone]:
    """One island after another. Raises ScenarioError, ModelError: of the first that fails."""
    arrivals_s = arrivals(run.scenario, run.seed)
    done: list[IslandDone] = []
    with rare_collections():
        for island in islands:
            if done:
                gc.collect(1)  # the devices of the last one know each other, and are still young
            done.append(_simulated(run, island, arrivals_s, shuffle_seed))
    return done


def _simulated(run: Run, island: Island, arrivals_s: Sequence[float], shuffle_seed: int | None) -> IslandDone:
    loop_factory = partial(SimLoop, shuffle_seed=shuffle_seed)
    with collected() as said, asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            done = runner.run(emulate(run, island, arrivals_s))
        except ScenarioError:
            raise
        except ForedraftError as error:  # a deadlock, a livelock, a model that fails
            where = f"{run.scenario.path}: policies: {run.policy!r}, seed {run.seed}"
            raise ScenarioError(f"{where}: {error}") from error
    return replace(done, warnings=frozenset(said))


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

    ``processes``: how many; None: as many as there are cores, if there is enough to do. Where there are more of them
    than replications, the islands of each are divided. Real models stay in this process: each would load them again.
    """
    jobs = [(policy, seed) for policy in policies for seed in seeds]
    for policy in policies:
        scenario.policy(policy)
    tell = on_done or (lambda count: None)
    islands = [everything(scenario)] if log else islands_of(scenario)
    workers = worthwhile_processes(scenario, len(jobs)) if processes is None else processes
    workers = min(workers, len(jobs) * len(islands))
    if workers > 1:
        return _in_processes(scenario, jobs, shares(islands, -(-workers // len(jobs))), workers, log, tell)
    results: list[Replication] = []
    for policy, seed in jobs:
        results.append(replicate(scenario, policy, seed, log=log))
        tell(len(results))
    return results


def worthwhile_processes(scenario: Scenario, jobs: int) -> int:
    """How many processes are worth their start."""
    tokens = jobs * scenario.workload.requests * scenario.longest[1]
    if isinstance(scenario.pair, ModelPair) or tokens < WORTH_TOKENS:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_processes(
    scenario: Scenario,
    jobs: Sequence[tuple[str, int]],
    parts: Sequence[Sequence[Island]],
    workers: int,
    log: bool,
    tell: Done,
) -> list[Replication]:
    """Each job's parts, as processes become free."""
    results: list[Replication] = []
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (portable(scenario),)) as pool:
        running = [[pool.submit(_part, *job, part, log) for part in parts] for job in jobs]
        try:
            for (policy, seed), futures in zip(jobs, running, strict=True):
                results.append(joined(policy, seed, [island for future in futures for island in _done(future)]))
                tell(len(results))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _done(future: "Future[list[IslandDone] | _Failure]") -> list[IslandDone]:
    result = future.result()
    if isinstance(result, _Failure):
        raise ScenarioError(result.message)
    return result


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


def _part(policy: str, seed: int, islands: Sequence[Island], log: bool) -> list[IslandDone] | _Failure:
    try:
        return simulated(Run(_scenario, policy, seed, token_source(_scenario), log), islands)
    except ForedraftError as error:
        return _Failure(str(error))
