"""What candidates come to, measured by workers; those that are planned, before anybody asks for them."""

from collections.abc import Iterator, Mapping, Sequence

from foredraft_sim.errors import ScenarioError
from foredraft_sim.scenario.finished import Replication
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.tune.metrics import metrics_of
from foredraft_sim.tune.search import Search
from foredraft_sim.workers.workers import Workers

Measured = Mapping[str, float] | ScenarioError


class Measures:
    """The metrics of candidates as ``Search.measure`` has them. ``planned``: those that will be asked for, in order."""

    def __init__(self, search: Search, workers: Workers, planned: Sequence[str]) -> None:
        self._search, self._workers = search, workers
        self._planned, self._found = set(planned), dict[str, Measured]()
        self._ahead = self._measured(planned)

    def of(self, policy: str) -> Mapping[str, float]:
        """The metrics of one. Raises ScenarioError where it cannot be run to its end."""
        while policy in self._planned - self._found.keys():
            self._found.update([next(self._ahead)])
        found = self._found[policy] if policy in self._planned else next(self._measured([policy]))[1]
        if isinstance(found, ScenarioError):
            raise found
        return found

    def _measured(self, policies: Sequence[str]) -> Iterator[tuple[str, Measured]]:
        tasks = ((policy, seed) for policy in policies for seed in self._search.seeds)
        done = self._workers.map(_replicated, self._search.scenario, tasks)
        for policy in policies:
            ones = [next(done) for _ in self._search.seeds]
            whole = [one for one in ones if isinstance(one, Replication)]
            failed = [one for one in ones if not isinstance(one, Replication)]
            yield policy, ScenarioError(failed[0]) if failed else metrics_of(self._search.scenario, whole)


def _replicated(scenario: Scenario, task: tuple[str, int]) -> Replication | str:
    """A replication, or why it came to no end."""
    try:
        return replicate(scenario, *task)
    except ScenarioError as error:
        return str(error)
