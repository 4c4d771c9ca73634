"""Many edges at once: what is compared, and what the simulation says of them."""

from dataclasses import replace

import pytest

from foredraft.profiles import Line, Model, Range, TargetProfile
from foredraft_sim.validate.calibrate import Correction
from foredraft_sim.validate.many import Many, Together, prompts_of, simulated_together
from foredraft_sim.validate.plan import FIT_PROMPTS, WAYS, plan_of
from sim.validate.test_validate_command import profiles

PLAN = replace(plan_of(quick=True, paced=False), new_tokens=12, least_runs=1, ways={"12 ms": WAYS["12 ms"]})
PASS_S, SEQUENCE_S = 0.020, 0.002
REACH = Range(new_tokens=(1, 600), context=(0, 8192), batch=(1, 8))


def test_each_figure_that_is_off_is_named_with_its_edges() -> None:
    real = Together(4, 100.0, 0.2)
    assert Many(real, Together(4, 109.0, 0.181)).missed() == []
    assert Many(real, Together(4, 111.0, 0.2)).missed() == [
        "4 edges at once: tokens per second off by +11.0%, more than 10%"
    ]
    assert Many(real, Together(4, 100.0, 0.15)).missed() == [
        "4 edges at once: p90 of the first token off by -25.0%, more than 10%"
    ]


def test_no_server_has_seen_a_prompt_before() -> None:
    asked = [prompt for count in PLAN.edges for turn in range(3) for prompt in prompts_of(PLAN, count, turn)]
    assert len(asked) == len({prompt[: len("# 8.0.0")] for prompt in asked})
    assert FIT_PROMPTS[0] in asked[0]


def test_edges_at_once_share_forwards_in_the_simulation() -> None:
    target = TargetProfile(
        name="batches",
        title="batches",
        kind="target",
        model=Model(name="m", layers=8),
        target_pass=Line(base_s=PASS_S, per_sequence_s=SEQUENCE_S, range=REACH),
        prefill=Line(base_s=0.03, range=REACH),
    )
    one, four, eight = simulated_together(PLAN, profiles(PLAN), target, "12 ms", Correction())
    assert [one.edges, four.edges, eight.edges] == [1, 4, 8]
    assert one.tokens_per_s < four.tokens_per_s < eight.tokens_per_s
    # Apart from the opening, a token takes a pass and the pass's share of the sequences.
    assert eight.tokens_per_s > 8 * one.tokens_per_s * PASS_S / (PASS_S + 7 * SEQUENCE_S) * 0.9
    assert eight.slow_ttft_s < one.slow_ttft_s + 0.03 + 7 * SEQUENCE_S
    slower = simulated_together(PLAN, profiles(PLAN), target, "12 ms", Correction(pass_s=0.02))
    assert slower[2].tokens_per_s == pytest.approx(eight.tokens_per_s * 34 / 54, rel=0.2)
