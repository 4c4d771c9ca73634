"""Where a plan's fleets are simulated, many of them at once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from foredraft_sim.scenario.finished import Replication
from foredraft_sim.scenario.replications import WORTH_TOKENS, Wanted, replicate_each, tokens_of, workers_for
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.workers.storage import Storage

Replicate = Callable[[Sequence[tuple[Scenario, str]]], list[list[Replication]]]
"""Each scenario with its policy, and all its seeds."""


@contextmanager
def fleets(scenario: Scenario, scheduler: str, storage: Storage | None = None) -> Iterator[Replicate]:
    """For fleets of a scenario's devices. Raises ConfigError, MissingExtraError."""
    with workers_for(scenario, WORTH_TOKENS, scheduler=scheduler, storage=storage) as workers:

        def replicate(pairs: Sequence[tuple[Scenario, str]]) -> list[list[Replication]]:
            wanted = [Wanted(one, policy, seed) for one, policy in pairs for seed in one.seeds]
            few = not scheduler and sum(tokens_of(one.scenario) for one in wanted) < WORTH_TOKENS
            done = iter(replicate_each(wanted, workers.here() if few else workers))
            return [[next(done) for _ in one.seeds] for one, _ in pairs]

        yield replicate
