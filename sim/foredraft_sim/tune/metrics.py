"""What can be tuned for, and held under a limit. Less is better with all of them."""

from collections.abc import Iterable, Sequence
from typing import Final

from foredraft.errors import ConfigError, UnknownNameError
from foredraft.observe.aggregate import percentile
from foredraft_sim.scenario.finished import Replication
from foredraft_sim.scenario.results import figures_of
from foredraft_sim.scenario.scenario import Scenario

PERCENTILES: Final = (50, 90, 95, 99)
TIMES: Final = ("ttft", "tpot", "e2e")
COST: Final = "cost"
ENERGY: Final = "energy"

UNITS: Final = {f"p{percent}-{time}": "s" for time in TIMES for percent in PERCENTILES} | {
    COST: "USD per million tokens",
    ENERGY: "J per token",
}
"""Each metric with its unit.

Percentiles are over all requests of all seeds. ``cost`` is the price of the servers' busy seconds, as if
others paid for the rest; ``energy`` is the edge's.
"""


def known(name: str) -> str:
    """The name itself. Raises UnknownNameError."""
    if name not in UNITS:
        raise UnknownNameError("metric", name, UNITS)
    return name


def check_known_here(scenario: Scenario, names: Iterable[str]) -> None:
    """Whether the scenario's profiles say enough for these metrics. Raises ConfigError."""
    price, watts = scenario.target.cost.price_usd_per_hour, scenario.draft.cost
    for name in names:
        if name == COST and not price:
            raise ConfigError(
                f"cost: {scenario.path}: the price of {scenario.target.name!r} is unknown; say it in the scenario: "
                "[cloud.override] cost.price_usd_per_hour = 2.5"
            )
        if name == ENERGY and (watts.active_w is None or watts.idle_w is None):
            raise ConfigError(
                f"energy: {scenario.path}: the watts of {scenario.draft.name!r} are unknown; say them in the "
                "scenario: [edge.override] cost.active_w = 8.0 and cost.idle_w = 3.0"
            )


def metrics_of(scenario: Scenario, ones: Sequence[Replication]) -> dict[str, float]:
    """All metrics of one policy over its seeds; cost and energy where they are known."""
    reports = [finished.report for one in ones for finished in one.finished]
    said = {
        f"p{percent}-{time}": percentile([getattr(report, f"{time}_s") for report in reports], percent)
        for time in TIMES
        for percent in PERCENTILES
    }
    rows = [figures_of(scenario, one) for one in ones]
    tokens = sum(report.new_tokens for report in reports)
    for name, figure, scale in ((COST, "cost_busy_usd", 1e6), (ENERGY, "edge_energy_j", 1.0)):
        values = [value for row in rows if (value := row[figure]) is not None]
        if len(values) == len(rows):
            said[name] = sum(values) * scale / tokens
    return said


def limit_of(text: str, option: str = "--limit") -> tuple[str, float]:
    """``p99-tpot=0.2`` as a metric and the most that it may be. Raises ConfigError, UnknownNameError."""
    name, _, value = text.partition("=")
    try:
        most = float(value)
    except ValueError:
        most = 0.0
    if not 0.0 < most < float("inf"):
        raise ConfigError(f"{option} {text!r}: write METRIC=MOST, with a number above 0: p99-tpot=0.2")
    return known(name.strip()), most
