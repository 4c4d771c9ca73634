"""A policy of one's own: draft for as long as all of it is likely to be right, then send it.

The same class runs simulated and for real, by the name module:Class[:parameters]. docs/policies.md
says what a policy may look at. This prints what it does at the seed's robot, beside ``sync``:

    python examples/own_policy.py
    PYTHONPATH=examples foredraft generate --policy own_policy:Confident:least=0.3 --server URL --prompt "def "
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foredraft.edge.state import Grower
from foredraft.edge.step import Orders, Step
from foredraft.protocol.tree import Node


@dataclass(frozen=True)
class Confident:
    """Synchronous rounds; a chain ends where the probability that all of it is right falls below ``least``."""

    least: float = 0.3
    name: str = "confident"

    def orders(self, grower: Grower) -> Orders:
        """Verify what comes; no hints, no decoding alone."""
        return Orders()

    def step(self, grower: Grower) -> Step | None:
        """One more guess below the last one, while none is at the cloud and it is likely enough."""
        last, reach = grower.reaches[-1]  # parents first: of a chain, its end
        enough = reach < self.least or last.position >= grower.position + grower.useful_depth
        return None if grower.verifying or enough or last.barren else Step((last,))

    def ship(self, grower: Grower) -> Sequence[Node]:
        """The chain, once there is nothing more to draft."""
        complete = not grower.verifying and self.step(grower) is None
        return [grower.reaches[-1][0]] if complete else []


if __name__ == "__main__":
    from foredraft_sim.scenario.replications import replicate
    from foredraft_sim.scenario.scenario import read_scenario

    robot = read_scenario(Path(__file__).with_name("scenarios") / "robot.toml")
    for policy in ("cloud", "sync", "own_policy:Confident:least=0.3"):
        report = replicate(robot, policy, seed=1).finished[0].report
        print(f"{report.policy}: {report.tpot_s * 1e3:.0f} ms per token, {report.tokens_per_pass:.2f} tokens per pass")
