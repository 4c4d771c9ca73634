"""Measuring: an engine that takes a known time is found to take that time."""

import asyncio

import msgspec
import pytest

from foredraft.core.ports import Guess
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.errors import ConfigError
from foredraft.profiles import DraftProfile, Line, Model, Range, Residual, TargetProfile, seconds
from foredraft.profiles.bundled import check_quiet
from foredraft.profiles.measuring import measure_drafter, measure_target
from foredraft_sim.loop import SimLoop

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


def test_a_known_draft_step_is_recovered() -> None:
    profile = DraftProfile(
        name="d", title="d", kind="draft", model=Model(name="m", layers=2), draft_step=STEP, prefill=PREFILL
    )

    async def main() -> None:
        inner = ScriptedDrafter(lambda position, width: [Guess(1, 0.5)], max_nodes_per_step=16)
        drafter = PacedDrafter(inner, profile)
        found = await measure_drafter(drafter, (1, 4, 8), (20, 100), (1, 500), vocab_size=300, repeats=3)
        for context in (1, 500):
            for nodes in (1, 4, 8):
                assert seconds(found.calls, nodes, context) == pytest.approx(seconds(STEP, nodes, context), rel=1e-3)
            assert found.prefill is not None
            assert seconds(found.prefill, 60, context) == pytest.approx(seconds(PREFILL, 60, context), rel=1e-3)
        assert found.cv == pytest.approx(0.0, abs=1e-6)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main())


def test_a_known_pass_its_exits_and_prefill_are_recovered() -> None:
    profile = TargetProfile(
        name="t",
        title="t",
        kind="target",
        model=Model(name="m", layers=8, head_share=0.2, exit_s=0.003),
        target_pass=PASS,
        prefill=PREFILL,
    )

    async def main() -> None:
        inner = ScriptedTarget(lambda at: 1, foresight=lambda layer, at: (1, 0.5), exits=(2, 4), context=2048)
        found = await measure_target(PacedTarget(inner, profile), (1, 8, 24), (1, 500), repeats=3)
        for context in (1, 500):
            for count in (1, 8, 24):
                assert seconds(found.calls, count, context) == pytest.approx(seconds(PASS, count, context), rel=2e-3)
        assert found.prefill is not None
        assert seconds(found.prefill, 64, 500) == pytest.approx(seconds(PREFILL, 64, 500), rel=2e-3)
        assert found.exit_s == pytest.approx(0.003, rel=0.05)
        assert found.head_share == pytest.approx(0.2, abs=0.001)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(main())


async def test_what_cannot_be_measured_is_refused() -> None:
    drafter = ScriptedDrafter(lambda position, width: [])
    with pytest.raises(ConfigError, match="at least 3 repeats"):
        await measure_drafter(drafter, (1,), (1,), (1,), vocab_size=10, repeats=2)
    with pytest.raises(ConfigError, match=r"contexts \[0\]"):
        await measure_drafter(drafter, (1,), (1,), (0,), vocab_size=10)
    with pytest.raises(ConfigError, match=r"counts \[\]"):
        await measure_target(ScriptedTarget(lambda at: 1), (), (1,))


def test_a_noisy_machine_is_refused_and_a_quiet_one_is_not() -> None:
    quiet = DraftProfile(
        name="d", title="d", kind="draft", model=Model(name="m", layers=2), draft_step=STEP, residual=Residual(cv=0.1)
    )
    check_quiet([quiet])
    with pytest.raises(ConfigError, match=r"varied by 35%, more than 20%.*--force"):
        check_quiet([quiet, msgspec.structs.replace(quiet, residual=Residual(cv=0.35))])
