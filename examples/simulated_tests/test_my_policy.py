"""A policy of one's own. In a project of your own, ``WarmingUp`` would be imported."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

import foredraft
from foredraft.edge.policy import Policy
from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.policies.chain import extend_root, finished_chain
from foredraft.protocol.tree import Node
from foredraft_sim.pytest_plugin import ConnectSimulated


@dataclass(frozen=True, slots=True)
class WarmingUp:
    """Rounds of ``few`` tokens at first, of ``many`` after the first ``warm_after`` tokens of the answer."""

    few: int = 1
    many: int = 6
    warm_after: int = 10
    name: str = "warming-up"

    def _gamma(self, state: EdgeState) -> int:
        return self.many if state.position - state.start >= self.warm_after else self.few

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """Verify whatever comes; never decode alone."""
        return VerifyParams()

    def step(self, state: EdgeState) -> Step | None:
        """Extend the chain below the tip, unless it is being verified."""
        return None if state.verifying else extend_root(state, self._gamma(state))

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """The chain, once it is complete."""
        return () if state.verifying else finished_chain(state, self._gamma(state))


async def report_of(edge: foredraft.Edge, policy: str | Policy, tokens: int = 80) -> foredraft.SessionReport:
    return await edge.generate("go on", policy=policy, seed=1, max_new_tokens=tokens).finish()


@pytest.mark.simulated
@pytest.mark.parametrize("policy", [WarmingUp(), WarmingUp(few=2, many=2), "seed", "auto"])
async def test_no_policy_changes_the_text(simulated_edge: ConnectSimulated, policy: str | Policy) -> None:
    async with simulated_edge("lte.toml") as edge:
        alone = await report_of(edge, "cloud")
        assert (await report_of(edge, policy)).text == alone.text


@pytest.mark.simulated
async def test_warming_up_saves_time_over_short_rounds_with_the_same_luck(simulated_edge: ConnectSimulated) -> None:
    async with simulated_edge("lte.toml") as edge:
        short = await report_of(edge, "sync:gamma=1", tokens=200)
    async with simulated_edge("lte.toml") as edge:
        mine = await report_of(edge, WarmingUp(few=1, many=4), tokens=200)
    assert mine.text == short.text
    assert mine.ttft_s <= short.ttft_s * 1.01
    assert mine.passes < short.passes
    assert mine.e2e_s < 0.9 * short.e2e_s


@pytest.mark.simulated(shuffle_seed=7)
async def test_the_text_does_not_depend_on_the_order_of_what_happens_at_once(simulated_edge: ConnectSimulated) -> None:
    async with simulated_edge("lte.toml") as edge:
        report = await report_of(edge, WarmingUp())
    assert (report.new_tokens, report.finish_reason) == (80, "length")
