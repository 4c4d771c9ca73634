"""A small validation for real: processes, proxy and sockets on one side, simulated time on the other."""

from dataclasses import replace

import pytest

from foredraft_sim.validate.plan import plan_of
from foredraft_sim.validate.run import validate


@pytest.mark.timeout(300)
def test_real_and_simulated_sessions_say_the_same_tokens() -> None:
    whole = plan_of(quick=True, paced=True)  # emulated devices need no measuring
    plan = replace(
        whole,
        policies=("cloud", "seed:gamma=4"),
        ways=dict(list(whole.ways.items())[:1]),
        fit_prompts=whole.fit_prompts[:1],
        report_prompts=whole.report_prompts[:2],
        new_tokens=8,
        link_s=1.0,
    )
    told: list[float] = []
    found = validate(plan, tell=lambda what, share: told.append(share))
    assert found.verdict.texts_differ == 0
    assert found.verdict.sessions == len(found.simulated) == 2 * 2
    assert {len(one.tokens) for one in found.real} == {8}
    assert all(one.tpot_s > 0.0 for one in (*found.real, *found.simulated))
    assert told == sorted(told)
    assert found.verdict.replayed["tpot_s"].count == 2 * 2
    assert found.verdict.replayed["tpot_s"].p50 < 1.0  # how small it is depends on the machine
    assert found.profiles.links.keys() == plan.ways.keys()
