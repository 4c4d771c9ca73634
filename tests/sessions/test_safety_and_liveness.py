"""Safety and liveness: whatever the schedule, the text is the target's and it comes to its end."""

import asyncio
from collections.abc import Callable
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from foredraft.cloud.state import Limits
from foredraft.edge.policy import Policy
from foredraft.policies import make_policy
from foredraft_sim.chaos.any_policy import AnyPolicy
from foredraft_sim.chaos.storm import Weather
from foredraft_sim.loop.event_loop import SimLoop
from sessions.chaos import Outcome, World, live_through

CHANCE = st.sampled_from((0.0, 0.1, 0.4))
WEATHERS = st.builds(
    Weather,
    delay_s=st.sampled_from((0.0, 0.01, 0.5)),
    duplicate=CHANCE,
    reorder=CHANCE,
    stale=CHANCE,
    cut=CHANCE,
    cuts=st.integers(0, 4),
    room=st.sampled_from((0, 1, 3)),
    at_once=st.sampled_from((0.0, 0.5)),
)
LIMITS = st.builds(
    Limits, max_nodes=st.sampled_from((1, 2, 5, 64)), max_chain=st.sampled_from((1, 2, 64)), idle_s=st.just(1e6)
)
WORLDS = st.builds(
    World,
    seed=st.integers(0, 1 << 32),
    prompt=st.sampled_from((1, 3, 20)),
    length=st.sampled_from((1, 2, 7, 30)),
    context=st.sampled_from((21, 24, 1 << 20)),
    stop_at=st.none() | st.sampled_from((0, 5, 6, 29)),
    weather=WEATHERS,
    limits=LIMITS,
    max_pass_nodes=st.sampled_from((0, 1, 3, 32)),
    prefill_chunk=st.sampled_from((1, 4, 64)),
    pass_s=st.sampled_from((0.0, 0.1, 3.0)),
    step_s=st.sampled_from((0.0, 0.02, 1.0)),
    busy=st.integers(0, 2),
    right=st.sampled_from((0.0, 0.7, 1.0)),
    wrong_hints=st.sampled_from((0.0, 0.3, 1.0)),
    max_nodes_per_step=st.sampled_from((1, 3)),
)


def outcome_in(world: World, new_policy: Callable[[Random], Policy]) -> Outcome:
    """What comes of it in simulated time, where a deadlock or a livelock is an error."""
    with asyncio.Runner(loop_factory=lambda: SimLoop(livelock_callbacks=50_000)) as runner:
        return runner.run(live_through(world, new_policy))


def check(world: World, outcome: Outcome) -> None:
    assert (outcome.shown, outcome.session.state.finish) == world.expected()
    assert outcome.took_s < 50_000.0  # not by way of the idle limit


@settings(max_examples=150)
@given(WORLDS, st.sampled_from((0.0, 0.3, 0.9)), st.sampled_from((0.0, 0.2, 1.0)))
def test_any_policy_in_any_weather_ends_with_the_targets_text(world: World, lazy: float, alone: float) -> None:
    check(world, outcome_in(world, lambda rng: AnyPolicy(rng, lazy, alone)))


@settings(max_examples=60)
@given(WORLDS, st.sampled_from(("cloud", "sync", "seed", "ahead", "auto", "seed:gamma=9", "sync:gamma=1")))
def test_the_policies_that_ship_end_with_the_targets_text_in_any_weather(world: World, spec: str) -> None:
    check(world, outcome_in(world, lambda _: make_policy(spec)))
