"""A policy of one's own. In a project of your own, ``WarmingUp`` would be imported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from foredraft import SessionReport, make_policy
from foredraft.edge.policy import Policy
from foredraft.edge.session import EdgeSession
from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.policies.chain import extend_root, finished_chain
from foredraft.protocol.tree import Node


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


async def report_of(session: EdgeSession) -> SessionReport:
    async for _ in session.stream():
        pass
    return session.report("")


@pytest.mark.simulated
@pytest.mark.parametrize("policy", [WarmingUp(), WarmingUp(few=2, many=2), make_policy("seed")])
async def test_no_policy_changes_the_text(new_session: Callable[..., EdgeSession], policy: Policy) -> None:
    alone = await report_of(new_session(make_policy("cloud"), tokens=80))
    assert (await report_of(new_session(policy, tokens=80))).tokens == alone.tokens


@pytest.mark.simulated
async def test_warming_up_saves_time_over_short_rounds_with_the_same_luck(
    new_session: Callable[..., EdgeSession],
) -> None:
    short = await report_of(new_session(make_policy("sync:gamma=1"), tokens=200))
    mine = await report_of(new_session(WarmingUp(few=1, many=6), tokens=200))
    assert mine.tokens == short.tokens
    assert mine.ttft_s <= short.ttft_s * 1.01
    assert mine.passes < short.passes
    assert mine.e2e_s < 0.9 * short.e2e_s


@pytest.mark.simulated(shuffle_seed=7)
async def test_the_text_does_not_depend_on_the_order_of_what_happens_at_once(
    new_session: Callable[..., EdgeSession],
) -> None:
    report = await report_of(new_session(WarmingUp(), tokens=80))
    assert report.new_tokens == 80
    assert report.finish_reason == "length"
