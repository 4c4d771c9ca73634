"""Every shipped profile: it loads, its numbers are sane, and the known figures are in it."""

import math

import pytest

from foredraft.profiles import (
    DraftProfile,
    LinkProfile,
    TargetProfile,
    load_profile,
    outside,
    seconds,
    share_after,
    shipped_profiles,
)
from foredraft.profiles.compute import call_curve

NAMES = list(shipped_profiles())


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_profile_loads_under_its_files_name_with_a_source_for_each_number(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.title
    assert profile.provenance
    assert all(len(origin.source) >= 8 for origin in profile.provenance.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_device_takes_finite_and_never_falling_time_over_its_range(name: str) -> None:
    profile = load_profile(name)
    if isinstance(profile, LinkProfile):
        assert math.isfinite(profile.round_trip_s)
        assert profile.round_trip_s > 0
        return
    for curve in (call_curve(profile), profile.prefill or call_curve(profile)):
        low, high = curve.range.new_tokens
        times = [seconds(curve, n, context) for context in curve.range.context for n in range(low, high + 1)]
        assert all(math.isfinite(time_s) and time_s > 0 for time_s in times)
        half = len(times) // 2
        assert times[:half] == sorted(times[:half])
        assert outside(curve, low, 0) == ""
    if profile.memory is not None:
        assert profile.memory.weights_bytes < profile.memory.device_bytes


def test_the_devices_and_links_that_the_issues_name_are_shipped() -> None:
    assert set(NAMES) >= {
        "jetson-nano-vicuna-68m", "orin-go2-qwen2-vl-2b", "raspberry-pi-5-vicuna-68m", "a100-llama2-7b",
        "a100-llama2-7b-eager", "a100-qwen2-vl-7b", "robot-5-draft", "robot-5-target",
        "lan", "wifi", "5g", "lte", "3g", "wan", "robot", "robot-5", "cellular-trace",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("draft", "target", "link", "round_ms"),
    [
        ("orin-go2-qwen2-vl-2b", "a100-qwen2-vl-7b", "robot", 1028.0),
        ("robot-5-draft", "robot-5-target", "robot-5", 205.6),
    ],
)
def test_a_synchronous_round_of_the_seeds_robot_takes_what_the_seed_says(
    draft: str, target: str, link: str, round_ms: float
) -> None:
    edge, cloud, way = (
        load_profile(draft, "draft"),
        load_profile(target, "target"),
        load_profile(link, "link"),
    )
    assert isinstance(edge, DraftProfile)
    assert isinstance(cloud, TargetProfile)
    round_s = 4 * seconds(edge.draft_step, 1, 0) + way.round_trip_s + seconds(cloud.target_pass, 5, 0)
    assert round_s * 1e3 == pytest.approx(round_ms)


def test_the_compiled_a100_has_its_exits_where_the_calibration_figures_have_them() -> None:
    profile = load_profile("a100-llama2-7b", "target")
    pass_s = seconds(profile.target_pass, 5, 0)
    assert pass_s == pytest.approx(0.00953)
    exits_ms = [share_after(profile.model, layer, 32) * pass_s * 1e3 for layer in (8, 16, 24)]
    assert exits_ms == pytest.approx([2.4, 4.8, 7.1], abs=0.15)
