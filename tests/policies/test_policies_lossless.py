"""Every policy, fan-out, window and price: the target's text, whatever the link does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foredraft.policies import make_policy
from foredraft_sim.chaos.storm import Weather
from sessions.chaos import World
from sessions.test_safety_and_liveness import check, outcome_in

SPECS = (
    "cloud",
    "sync:gamma=3",
    "seed",
    "ahead",
    "ahead:width=1,batch=1",
    "ahead:branches=1,max_pending=8",
    "ahead:patience_s=2,min_nodes=5",
    "auto",
    "auto:cost_weight=4",
    "auto:width=1,batch=1",
    "auto:width=8,min_probability=0",
    "colocated:cloud_gamma=3",
    "both:cloud_gamma=2",
)
STORMS = st.builds(
    Weather,
    delay_s=st.sampled_from((0.0, 0.05, 0.5)),
    duplicate=st.sampled_from((0.0, 0.2)),
    reorder=st.sampled_from((0.0, 0.2)),
    stale=st.sampled_from((0.0, 0.2)),
    cut=st.sampled_from((0.02, 0.1)),
    cuts=st.integers(0, 4),
)
WORLDS = st.builds(
    World,
    seed=st.integers(0, 1 << 32),
    length=st.sampled_from((1, 2, 40)),
    weather=STORMS,
    max_pass_nodes=st.sampled_from((1, 8, 32)),
    pass_s=st.sampled_from((0.0, 0.1)),
    step_s=st.sampled_from((0.0, 0.02, 0.3)),
    right=st.sampled_from((0.0, 0.7, 1.0)),
    max_nodes_per_step=st.sampled_from((1, 8)),
)


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=12, deadline=None)
@given(WORLDS)
def test_the_text_is_the_targets_under_delays_cuts_and_reconnects(spec: str, world: World) -> None:
    check(world, outcome_in(world, lambda _: make_policy(spec)))
