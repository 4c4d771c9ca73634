"""Figures: intervals, percentiles, cost and energy."""

from pathlib import Path

import pytest

from foredraft.observe.aggregate import percentile
from foredraft_sim.scenario.replications import replicate, replicate_all
from foredraft_sim.scenario.results import figures_of, interval, student_t, summarise
from paths import PROFILES
from sim.scenario.scenario_files import scenario, workload


@pytest.mark.parametrize(
    ("freedom", "known"), [(1, 12.706), (4, 2.776), (10, 2.228), (16, 2.120), (30, 2.042), (120, 1.980)]
)
def test_students_quantiles_are_those_of_the_tables(freedom: int, known: float) -> None:
    assert student_t(freedom) == pytest.approx(known, abs=1e-3)


def test_an_interval_is_students_and_one_sample_has_none() -> None:
    low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0]) or (0.0, 0.0)
    assert (low + high) / 2 == 3.0
    assert (high - low) / 2 == pytest.approx(2.776 * 1.5811388 / 5**0.5, rel=1e-6)
    assert interval([1.0]) is None


def test_percentiles_lie_between_the_order_statistics() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile([4.0, 1.0, 3.0, 2.0], 90) == pytest.approx(3.7)
    assert percentile([5.0], 99) == 5.0


def test_cost_is_price_times_time_held_and_energy_is_active_and_idle_watts(tmp_path: Path) -> None:
    read = scenario(tmp_path, ("seeds = [1, 2]", "seeds = [1]"))
    one = replicate(read, "sync:gamma=4", 1)
    figures = figures_of(read, one)
    report = one.finished[0].report
    assert one.servers_busy_s == pytest.approx(report.target_s)
    assert figures["utilisation"] == pytest.approx(report.target_s / one.duration_s)
    assert figures["cost_usd"] == pytest.approx(4.1 * one.duration_s / 3600)
    assert figures["cost_busy_usd"] == pytest.approx(4.1 * report.target_s / 3600)
    busy_s = one.devices_busy_s
    assert figures["edge_energy_j"] == pytest.approx(25.0 * busy_s + 7.0 * (report.e2e_s - busy_s))


def test_unknown_watts_and_prices_are_null_with_a_note(tmp_path: Path) -> None:
    profiles = PROFILES
    text = (profiles / "a100-qwen2-vl-7b.toml").read_text()
    (tmp_path / "mine.toml").write_text(text[: text.index("[cost]")])
    read = scenario(tmp_path, ('"a100-qwen2-vl-7b"', '"mine.toml"'), ("seeds = [1, 2]", "seeds = [1]"))
    summary = summarise(read, replicate_all(read, ["cloud"], [1]))
    assert summary["policies"][0]["cost_usd"] is None
    assert any("price" in note and "unknown" in note for note in summary["notes"])


def test_a_summary_has_means_over_seeds_ratios_by_seed_and_the_same_texts(tmp_path: Path) -> None:
    read = scenario(tmp_path, workload(requests=3, prompt_tokens=8, new_tokens=16))
    done = replicate_all(read, ["cloud", "sync:gamma=4"], [1, 2])
    summary = summarise(read, done)
    cloud, sync = summary["policies"]
    ends = {(one.policy, one.seed): sum(f.report.e2e_s for f in one.finished) / 3 for one in done}
    assert sync["e2e_s"] == pytest.approx((ends["sync:gamma=4", 1] + ends["sync:gamma=4", 2]) / 2)
    speeds = [ends["cloud", seed] / ends["sync:gamma=4", seed] for seed in (1, 2)]
    assert sync["speed_against_first"] == pytest.approx(sum(speeds) / 2)
    assert sync["intervals"]["speed_against_first"] == pytest.approx(interval(speeds))
    assert cloud["speed_against_first"] == 1.0
    assert cloud["new_tokens"] == sync["new_tokens"] == 48
    assert summary["same_texts"] is True
    assert sync["percentiles"]["tpot_s"]["p50"] <= sync["percentiles"]["tpot_s"]["p99"]


def test_a_summary_has_the_fields_of_generate(tmp_path: Path) -> None:
    read = scenario(tmp_path)
    said = summarise(read, replicate_all(read, ["sync:gamma=4"], [1]))["policies"][0]
    numbers = set(said["first_request"]) - {
        "text",
        "tokens",
        "policy",
        "policy_from",
        "exact",
        "translated",
        "forced",  # no simulated text is held to a grammar
        "unverified",  # nor finished by its draft
        "image_bytes",  # nor about an image
        "image_s",
        "acceptance",
        "seed",
        "temperature",
        "finish_reason",
        "text_digest",
    }
    assert numbers <= set(said)
    assert said["finish_reasons"] == {"length": 1}
