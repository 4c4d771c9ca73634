"""A policy of one's own: draft for as long as all of it is likely to be right, then send it.

The same class runs simulated and for real, by the name module:Class[:parameters]. docs/policies.md
says what a policy may look at. This prints what it does at the seed's robot, beside ``sync``:

    python examples/own_policy.py
    PYTHONPATH=examples foredraft generate --policy own_policy:Confident:least=0.3 --server URL --prompt "def "
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.protocol.tree import Node


@dataclass(frozen=True)
class Confident:
    """Synchronous rounds; a chain ends where the probability that all of it is right falls below ``least``."""

    least: float = 0.3
    name: str = "confident"

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Verify what comes; no hints, no decoding alone."""
        return VerifyParams()

    def step(self, state: EdgeState) -> Step | None:
        """One more guess below the last one, while none is at the cloud and it is likely enough."""
        last, probability = state.path_probabilities[-1]  # parents first: of a chain, its end
        enough = probability < self.least or last.position >= state.position + state.useful_depth
        return None if state.verifying or enough or last.barren else Step((last,))

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """The chain, once there is nothing more to draft."""
        complete = not state.verifying and self.step(state) is None
        return [state.path_probabilities[-1][0]] if complete else []


if __name__ == "__main__":
    from foredraft_sim.scenario.replications import replicate
    from foredraft_sim.scenario.scenario import read_scenario

    robot = read_scenario(Path(__file__).with_name("scenarios") / "robot.toml")
    for policy in ("cloud", "sync", "own_policy:Confident:least=0.3"):
        report = replicate(robot, policy, seed=1).finished[0].report
        print(f"{report.policy}: {report.tpot_s * 1e3:.0f} ms per token, {report.tokens_per_pass:.2f} tokens per pass")
