"""Capacity: the search finds the edge, a fleet asks as much per device, and the cheapest servers are the cheapest."""

import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from foredraft.cli.main import app
from foredraft_sim.plan.capacity import Capacity, Fleet, capacity, side_by_side, sized
from foredraft_sim.plan.influences import BETTER, better, influences
from foredraft_sim.plan.mix import Offer, cheapest
from foredraft_sim.scenario.scenario import read_scenario
from foredraft_sim.scenario.scenario_file import Poisson
from paths import SCENARIOS

SMALL = """
policies = ["auto"]
seeds = 2

[edge]
profile = "raspberry-pi-5-vicuna-68m"

[cloud]
profile = "a100-llama2-7b-eager"

[link]
profile = "lan"

[pair]
kind = "synthetic"
ranks = [0.7, 0.1]
layers = 32

[workload]
requests = 2
new_tokens = 12
arrivals = { kind = "closed", think_s = 0.1 }
"""


def fleet(devices: int, broken: tuple[str, ...]) -> Fleet:
    return Fleet(devices, {}, [], broken, 0.0, 0.0, None, None)


@given(edge=st.integers(0, 300), most=st.integers(1, 256))
def test_the_search_finds_the_largest_fleet_within_one_in_twenty(edge: int, most: int) -> None:
    tried: list[int] = []

    def measure(asked: Sequence[tuple[int, int]]) -> list[Fleet]:
        tried.extend(devices for _, devices in asked)
        return [fleet(devices, ("p95-tpot",) if devices > edge else ()) for _, devices in asked]

    (found,) = side_by_side([capacity("auto", most)], measure)
    carried = found.holds.devices if found.holds else 0
    assert carried <= min(edge, most)
    assert carried >= min(edge, most) * 0.95 - 1
    assert (found.breaks is None) == (edge >= most)
    assert len(tried) == len(set(tried)) <= 16
    assert max(tried) <= most


def test_searches_go_on_together_and_find_what_each_finds_alone() -> None:
    edges = (0, 3, 40)

    def measure(asked: Sequence[tuple[int, int]]) -> list[Fleet]:
        return [fleet(devices, ("p95-tpot",) if devices > edges[number] else ()) for number, devices in asked]

    def alone(number: int) -> Capacity:
        return side_by_side([capacity("auto", 64)], lambda asked: measure([(number, count) for _, count in asked]))[0]

    assert side_by_side([capacity("auto", 64) for _ in edges], measure) == [alone(number) for number in range(3)]


@pytest.mark.parametrize("devices", [1, 7, 40])
def test_a_fleet_of_another_size_asks_as_much_per_device(devices: int) -> None:
    scenario = read_scenario(SCENARIOS / "fleet.toml")
    work = sized(scenario, devices).workload
    assert (work.devices, work.requests) == (devices, 3 * devices)
    assert isinstance(work.arrivals, Poisson)
    assert work.arrivals.rate_per_s == pytest.approx(4.0 * devices / 20)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40)), min_size=1, max_size=3),
    st.integers(1, 25),
)
def test_no_other_servers_are_cheaper(kinds: list[tuple[int, int]], devices: int) -> None:
    offers = [Offer(str(number), carried, float(price)) for number, (carried, price) in enumerate(kinds)]
    mix = cheapest(offers, devices)
    counts = product(*(range(devices + 1) for _ in offers))
    ways = [
        sum(count * offer.usd_per_hour for count, offer in zip(each, offers, strict=True))
        for each in counts
        if sum(count * offer.devices for count, offer in zip(each, offers, strict=True)) >= devices
    ]
    if mix is None:
        assert not ways
        return
    assert mix.usd_per_hour == min(ways)
    carried = {offer.name: offer.devices for offer in offers}
    assert sum(count * carried[name] for name, count in mix.servers.items()) >= devices


def test_each_influence_makes_one_thing_better_and_says_by_how_much() -> None:
    scenario = read_scenario(SCENARIOS / "fleet.toml")
    changed = dict(better(scenario))
    server, device, link = changed.values()
    before, after = scenario.target.target_pass, server.target.target_pass
    assert getattr(after, "base_s") == pytest.approx(BETTER * getattr(before, "base_s"))  # noqa: B009 - a line or a grid
    assert (server.draft, server.link) == (scenario.draft, scenario.link)
    assert device.target == scenario.target != server.target
    assert link.link.up.delay_s == pytest.approx(BETTER * scenario.link.up.delay_s)
    told = influences(
        scenario,
        {"p95-tpot": 1.0},
        lambda every: [{"p95-tpot": 1.0 if one.link == scenario.link else 0.5} for one in every],
    )
    assert [ratios["p95-tpot"] for _, ratios in told] == [1.0, 1.0, 0.5]


def planned(tmp_path: Path, *words: str) -> tuple[int, Mapping[str, object], str]:
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    done = CliRunner().invoke(app, ["plan", str(file), *words, "--json"])
    return done.exit_code, json.loads(done.stdout) if done.stdout.startswith("{") else {}, done.stderr


def test_a_plan_tells_devices_price_mix_and_what_would_move_it(tmp_path: Path) -> None:
    picture = tmp_path / "plan.svg"
    words = ["--slo", "p95-tpot=0.06", "--most", "8", "--devices", "20", "--picture", str(picture)]
    code, said, _ = planned(tmp_path, *words)
    assert code == 0
    rows = {row["policy"]: row for row in said["rows"]}  # type: ignore[attr-defined]
    assert set(rows) == {"cloud", "auto"}
    for row in rows.values():
        assert 1 <= row["devices_per_server"] <= 8
        assert row["nearest"]["p95-tpot"] <= 0.06
        assert row["usd_per_million_tokens"] > 0.0
        needed = -(-20 // row["devices_per_server"])
        assert said["mixes"][row["policy"]]["servers"] == {"a100-llama2-7b-eager": needed}  # type: ignore[index]
    assert len(said["influences"]) == 3  # type: ignore[arg-type]
    assert "<svg" in picture.read_text()


def test_an_objective_that_nothing_meets_says_the_nearest_and_fails(tmp_path: Path) -> None:
    code, said, _ = planned(tmp_path, "--slo", "p95-tpot=0.0001", "--most", "4")
    assert code == 1
    for row in said["rows"]:  # type: ignore[attr-defined]
        assert (row["devices_per_server"], row["limited_by"]) == (0, ["p95-tpot"])
        assert row["nearest"]["p95-tpot"] > 0.0001


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--slo", "p95-speed=1"], "did you mean"),
        (["--slo", "p95-tpot"], "--slo 'p95-tpot': write METRIC=MOST"),
        (["--slo", "p95-tpot=0.1", "--server", "a101"], "a101"),
        (["--slo", "p95-tpot=0.1", "--policy", "none"], "none"),
    ],
)
def test_what_cannot_be_planned_is_named(tmp_path: Path, words: list[str], said: str) -> None:
    code, _, error = planned(tmp_path, *words)
    assert code != 0
    assert said in error
