"""What a rest costs: an engine that is slower after one is found to be, by as much."""

import asyncio
from pathlib import Path

import pytest

from foredraft.calibration.wakeup import GAPS_S, drafter_wake, fit_wake, target_wake
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.profiles import DraftProfile, Host, Line, Model, Range, TargetProfile, parse_profile, render_profile
from foredraft.profiles.compute import wake_s
from foredraft.protocol.ports import Guess
from foredraft_sim.loop.event_loop import SimLoop

REACH = Range(new_tokens=(1, 128), context=(0, 4096))
LINE = Line(base_s=0.002, range=REACH)


def drafter(host: Host) -> PacedDrafter:
    profile = DraftProfile(
        name="d", title="d", kind="draft", model=Model(name="m", layers=2), draft_step=LINE, host=host
    )
    return PacedDrafter(ScriptedDrafter(lambda position, width: [Guess(1, 0.5)]), profile)


def target(host: Host) -> PacedTarget:
    profile = TargetProfile(
        name="t", title="t", kind="target", model=Model(name="m", layers=8), target_pass=LINE, host=host
    )
    return PacedTarget(ScriptedTarget(lambda position: 1), profile)


def measured(host: Host) -> tuple[tuple[float, float], tuple[float, float]]:
    """Both ends' wake, in simulated time."""

    async def both() -> tuple[tuple[float, float], tuple[float, float]]:
        return await drafter_wake(drafter(host), vocab_size=100, context=512), await target_wake(target(host))

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(both())


def test_an_engine_that_wakes_slowly_is_found_to() -> None:
    for found_s, half_s in measured(Host(wake_s=0.001, wake_half_s=0.01)):
        assert found_s == pytest.approx(0.001, rel=0.05)
        assert half_s == pytest.approx(0.01, rel=0.15)


def test_an_engine_that_is_always_awake_is_found_to_be() -> None:
    for found_s, _ in measured(Host()):
        assert found_s == 0.0


def test_differences_that_are_small_against_a_call_are_none() -> None:
    assert fit_wake(dict.fromkeys(GAPS_S, 0.00001), 0.001)[0] == 0.0


def test_half_of_it_is_lost_after_the_half_and_all_of_it_for_ever() -> None:
    host = Host(wake_s=0.004, wake_half_s=0.01)
    assert wake_s(host, 0.0) == 0.0
    assert wake_s(host, 0.01) == pytest.approx(0.002)
    assert wake_s(host, float("inf")) == 0.004


def test_a_profile_keeps_what_its_host_takes() -> None:
    text = """
kind = "draft"
name = "d"
title = "d"
[model]
name = "m"
layers = { value = 2, provenance = "assumed", source = "test" }
[draft_step]
shape = "line"
base_s = { value = 0.01, provenance = "assumed", source = "test" }
range.new_tokens = { value = [1, 8], provenance = "assumed", source = "test" }
range.context = { value = [0, 8], provenance = "assumed", source = "test" }
[host]
message_s = { value = 0.0001, provenance = "derived", source = "test" }
wake_s = { value = 0.001, provenance = "measured", source = "test" }
"""
    profile = parse_profile(text, Path("d.toml"))
    assert isinstance(profile, DraftProfile)
    assert profile.host == Host(message_s=0.0001, wake_s=0.001)
    assert parse_profile(render_profile(profile), Path("d.toml")) == profile
