"""Replications of a scenario: one policy and one seed each, island by island, each island in a loop of its own.

All of them run in several processes where that pays, and so do the islands of one; the results are the same.
"""

import asyncio
import gc
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from foredraft.errors import ConfigError, ForedraftError
from foredraft_sim.errors import ScenarioError
from foredraft_sim.loop.event_loop import SimLoop
from foredraft_sim.scenario.emulation import NewPace, Run, arrivals, emulate
from foredraft_sim.scenario.finished import Replication
from foredraft_sim.scenario.islands import Island, IslandDone, everything, islands_of, joined, shares
from foredraft_sim.scenario.pairs import TokenSource, token_source
from foredraft_sim.scenario.quiet import collected, rare_collections
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.scenario_file import ModelPair
from foredraft_sim.workers.storage import Storage, sources_of
from foredraft_sim.workers.workers import Workers, cores, opened

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
class Wanted:
    """One replication: of what, with which policy and which seed."""

    scenario: Scenario
    policy: str
    seed: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Some islands of one replication; ``scenario``: which of those that were sent along."""

    scenario: int
    policy: str
    seed: int
    islands: Sequence[Island]
    log: bool


def replicate_all(
    scenario: Scenario,
    policies: Sequence[str],
    seeds: Sequence[int],
    *,
    log: bool = False,
    workers: Workers | None = None,
    on_done: Done | None = None,
) -> list[Replication]:
    """Each policy with each seed, in that order. Raises ScenarioError, ModelError.

    ``workers``: where they run; None: in as many processes as there are cores, if there is enough to do.
    """
    wanted = [Wanted(scenario, policy, seed) for policy in policies for seed in seeds]
    for policy in policies:
        scenario.policy(policy)
    if workers is None:
        with workers_for(scenario, len(wanted)) as found:
            return replicate_each(wanted, found, log=log, on_done=on_done)
    return replicate_each(wanted, workers, log=log, on_done=on_done)


def replicate_each(
    wanted: Sequence[Wanted], workers: Workers, *, log: bool = False, on_done: Done | None = None
) -> list[Replication]:
    """All that is wanted, in that order; where there are more workers, the islands of each are divided.

    Raises ScenarioError, ModelError.
    """
    scenarios = list({id(one.scenario): one.scenario for one in wanted}.values())
    numbers = {id(scenario): number for number, scenario in enumerate(scenarios)}
    count = -(-workers.count // len(wanted))
    parts = [shares([everything(one)] if log else islands_of(one), count) for one in scenarios]
    tasks = [
        _Part(number, one.policy, one.seed, islands, log)
        for one in wanted
        for number in (numbers[id(one.scenario)],)
        for islands in parts[number]
    ]
    results: list[Replication] = []
    with closing(workers.map(_islands_done, scenarios, tasks)) as done:
        for one in wanted:
            here = [island for _ in parts[numbers[id(one.scenario)]] for island in next(done)]
            results.append(joined(one.policy, one.seed, here))
            if on_done is not None:
                on_done(len(results))
    return results


def _islands_done(scenarios: Sequence[Scenario], part: _Part) -> list[IslandDone]:
    scenario = scenarios[part.scenario]
    return simulated(Run(scenario, part.policy, part.seed, token_source(scenario), part.log), part.islands)


def workers_for(
    scenario: Scenario,
    jobs: int,
    processes: int | None = None,
    scheduler: str = "",
    storage: Storage | None = None,
) -> AbstractContextManager[Workers]:
    """Where so many replications run, as a user asked. Raises ConfigError, MissingExtraError."""
    if scheduler and isinstance(scenario.pair, ModelPair):
        raise ConfigError(f"--scheduler {scheduler}: real models run in this process; leave it out")
    return opened(processes, scheduler, worthwhile_processes(scenario, jobs), storage)


def storage_for(scenario: Scenario, policies: Sequence[str], folder: Path | None) -> Storage | None:
    """Where replications with these policies are kept, if a user named a folder. Raises ConfigError."""
    if folder is None:
        return None
    if isinstance(scenario.pair, ModelPair):
        way = "leave it out, or record them once (--record), and simulate what was recorded"
        raise ConfigError(f"--storage {folder}: it cannot tell whether real models are still the same; {way}")
    return Storage(folder, sources_of(policies))


def worthwhile_processes(scenario: Scenario, jobs: int) -> int:
    """How many processes are worth their start. Real models stay in this one: each would load them again."""
    if isinstance(scenario.pair, ModelPair) or jobs * tokens_of(scenario) < WORTH_TOKENS:
        return 1
    return cores()


def tokens_of(scenario: Scenario) -> int:
    """About how many tokens a replication has."""
    return scenario.workload.requests * scenario.longest[1]
