"""Measuring: an engine that takes a known time is found to take that time."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from foredraft.calibration.fitting import Samples, points_of, variation
from foredraft.calibration.host import drafter_host_s, target_host_s
from foredraft.calibration.measuring import Plan, measure_drafter, measure_target
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.errors import ConfigError
from foredraft.profiles import DraftProfile, Line, Model, Range, TargetProfile, seconds
from foredraft.protocol.ports import Guess
from foredraft_sim.loop.event_loop import SimLoop

REACH = Range(new_tokens=(1, 1024), context=(0, 4096))
STEP = Line(
    base_s=0.010,
    flat_tokens=4,
    per_token_s=0.001,
    per_context_s=1e-6,
    range=Range(new_tokens=(1, 16), context=(0, 4096)),
)
PASS = Line(base_s=0.080, flat_tokens=8, per_token_s=0.002, per_context_s=1e-5, range=REACH)
PREFILL = Line(base_s=0.050, per_token_s=0.0001, per_context_s=1e-5, range=REACH)


def simulated(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main)


def paced_drafter() -> PacedDrafter:
    profile = DraftProfile(
        name="d", title="d", kind="draft", model=Model(name="m", layers=2), draft_step=STEP, prefill=PREFILL
    )
    inner = ScriptedDrafter(lambda position, width: [Guess(1, 0.5)], max_nodes_per_step=16)
    return PacedDrafter(inner, profile)


def paced_target() -> PacedTarget:
    profile = TargetProfile(
        name="t",
        title="t",
        kind="target",
        model=Model(name="m", layers=8, head_share=0.2, exit_s=0.003),
        target_pass=PASS,
        prefill=PREFILL,
    )
    inner = ScriptedTarget(lambda at: 1, exit_script=lambda layer, at: (1, 0.5), exits=(2, 4), context=2048)
    return PacedTarget(inner, profile)


def meets(samples: Samples, line: Line, rel: float) -> None:
    """Each median is what the line says."""
    for point in points_of(samples):
        assert point.median_s == pytest.approx(seconds(line, point.call.new_tokens, point.call.context), rel=rel)
    assert variation(samples) == pytest.approx(0.0, abs=1e-6)


def test_a_known_draft_step_is_recovered_half_way_points_included() -> None:
    async def main() -> None:
        plan = Plan((1, 4, 8), (1, 500), repeats=3)
        found = await measure_drafter(paced_drafter(), plan, vocab_size=300, context=700)
        meets(found.steps.fitted, STEP, 1e-3)
        meets(found.steps.held_out, STEP, 1e-3)
        meets({call: taken for call, taken in found.prefills.fitted.items() if call.new_tokens > 16}, PREFILL, 1e-3)
        assert {(call.new_tokens, call.context) for call in found.steps.fitted} == {
            (count, held) for count in (1, 4, 8) for held in (1, 500)
        }
        assert {(call.new_tokens, call.context) for call in found.steps.held_out} == {(2, 22), (6, 22)}

    simulated(main())


def test_a_known_pass_its_exits_and_prefill_are_recovered() -> None:
    async def main() -> None:
        found = await measure_target(paced_target(), Plan((1, 8, 24), (1, 500), repeats=3))
        meets(found.passes.fitted, PASS, 1e-3)
        meets(found.passes.held_out, PASS, 1e-3)
        meets(found.prefills.fitted, PREFILL, 1e-3)
        assert found.exit_s == pytest.approx(0.003, rel=0.01)
        assert found.spoken.head_share(8) == pytest.approx(0.2, abs=0.001)
        assert found.spoken.late == 0

    simulated(main())


def test_every_point_is_measured_as_often_as_was_asked() -> None:
    async def main() -> None:
        told: list[float] = []
        found = await measure_target(paced_target(), Plan((1, 4), (1, 64), repeats=4), progress=told.append)
        assert {len(taken) for taken in found.passes.fitted.values()} == {4}
        assert told == [pytest.approx(done / 5) for done in range(1, 6)]

    simulated(main())


def test_exits_that_speak_with_the_verdict_are_counted() -> None:
    async def main() -> None:
        inner = ScriptedTarget(lambda at: 1, exit_script=lambda layer, at: (1, 0.5), exits=(2,), context=700)
        found = await measure_target(inner, Plan((1, 4), (1, 64), repeats=3))  # all in one instant
        assert found.spoken.late == 3 * (2 * 2 + 1)

    simulated(main())


def test_the_session_adds_no_time_where_none_passes_between_calls() -> None:
    async def main() -> None:
        assert await target_host_s(paced_target()) == pytest.approx(0.0, abs=1e-6)
        assert await drafter_host_s(paced_drafter(), vocab_size=300, context=500) == pytest.approx(0.0, abs=1e-6)

    simulated(main())


async def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 3 repeats"):
        Plan((1,), (1,), repeats=2)
    with pytest.raises(ConfigError, match=r"contexts \[0\]"):
        Plan((1,), (0,))
    with pytest.raises(ConfigError, match=r"tokens \[\]"):
        Plan((), (1,))
    with pytest.raises(ConfigError, match="ask for shorter --contexts"):
        await measure_target(ScriptedTarget(lambda at: 1, context=100), Plan((8,), (96,), 3))
    with pytest.raises(ConfigError, match="this target takes 33"):
        await measure_target(ScriptedTarget(lambda at: 1), Plan((64,), (1,), 3))
