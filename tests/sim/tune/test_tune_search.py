"""The tuner finds what is best: a planted optimum, and the optimum of a grid that brute force knows."""

import math
from pathlib import Path

import pytest

from foredraft_sim.scenario.replications import replicate
from foredraft_sim.tune.metrics import metrics_of
from foredraft_sim.tune.search import Candidate, Search, digest
from sim.scenario.scenario_files import scenario
from sim.tune.tuning import SHORT, place, search, study

pytestmark = pytest.mark.timeout(180)  # a storage is slow on a busy machine


class Planted(Search):
    """In the place of the simulation, a bowl with its bottom at gamma 11 and threshold 0.3."""

    __slots__ = ()

    def measure(self, policy: str) -> dict[str, float]:
        gamma, threshold = (float(part.partition("=")[2]) for part in policy.partition(":")[2].split(","))
        seconds = 1.0 + (gamma / 11 - 1) ** 2 + (threshold - 0.3) ** 2
        return {"p50-e2e": seconds, "p99-e2e": 2 * seconds, "cost": gamma}


def planted(folder: Path, **other: object) -> Planted:
    plain = search(folder, **other)
    return Planted(plain.scenario, plain.policies, plain.objectives, plain.limits, plain.seeds)


def test_a_planted_optimum_is_found_among_336_candidates_in_60_trials(tmp_path: Path) -> None:
    asked = planted(tmp_path)
    assert asked.count() == 336
    found = study(asked, place(tmp_path), 60)
    assert len(found) == 60
    assert asked.front(found)[0].metrics["p50-e2e"] <= 1.02


def test_limits_hold_for_all_of_the_front(tmp_path: Path) -> None:
    asked = planted(tmp_path, limits={"cost": 6.0})
    best = asked.front(study(asked, place(tmp_path), 50))[0]
    assert best.metrics["cost"] <= 6.0
    assert best.metrics["p50-e2e"] <= 1.02 * (1.0 + (6 / 11 - 1) ** 2)


def test_two_objectives_give_a_front_from_one_extreme_to_the_other(tmp_path: Path) -> None:
    asked = planted(tmp_path, objectives=("p50-e2e", "cost"))
    front = asked.front(study(asked, place(tmp_path), 50))
    times, costs = zip(*(asked.values(one) for one in front), strict=True)
    assert list(times) == sorted(times)
    assert list(costs) == sorted(costs, reverse=True)
    assert costs[-1] == 1.0
    assert len(front) >= 5


def test_it_comes_within_2_percent_of_what_brute_force_finds_in_the_simulator(tmp_path: Path) -> None:
    asked = search(tmp_path)
    truth = min(
        metrics_of(asked.scenario, [replicate(asked.scenario, f"seed:gamma={gamma},threshold={threshold:g}", 1)])[
            "p50-e2e"
        ]
        for gamma in range(1, 17)
        for threshold in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    best = asked.front(study(asked, place(tmp_path), 60))[0]
    assert best.metrics["p50-e2e"] <= 1.02 * truth


def test_where_all_candidates_can_be_tried_all_are(tmp_path: Path) -> None:
    asked = search(tmp_path, policies=("sync", "cloud"))
    found = study(asked, place(tmp_path), 17)
    assert {one.policy for one in found} == {"cloud", *(f"sync:gamma={gamma}" for gamma in range(1, 17))}
    assert asked.front(found)[0].metrics["p50-e2e"] == min(one.metrics["p50-e2e"] for one in found)


def test_each_policy_as_it_comes_is_tried_first(tmp_path: Path) -> None:
    asked = planted(tmp_path)
    assert study(asked, place(tmp_path), 3)[0].policy == "seed:gamma=4,threshold=0.5"


def test_what_a_specification_gives_is_not_tuned(tmp_path: Path) -> None:
    asked = search(tmp_path, policies=("seed:gamma=2",))
    assert asked.count() == 21
    points = asked.points(21)
    assert points is not None
    assert points[0] == {"seed:gamma=2 threshold": 0.0}
    assert asked.default_specs() == ["seed:gamma=2,threshold=0.5"]


def test_the_same_search_alone_tries_the_same_candidates(tmp_path: Path) -> None:
    tried = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        tried.append([one.policy for one in study(planted(tmp_path), place(tmp_path / name), 15)])
    assert tried[0] == tried[1]


def test_a_candidate_is_simulated_once_however_often_it_is_suggested(tmp_path: Path) -> None:
    seen: list[str] = []

    class Counting(Planted):
        __slots__ = ()

        def measure(self, policy: str) -> dict[str, float]:
            seen.append(policy)
            return super().measure(policy)

    plain = search(tmp_path, policies=("seed:threshold=0.5",))
    asked = Counting(plain.scenario, plain.policies, plain.objectives, plain.limits, plain.seeds)
    found = study(asked, place(tmp_path), 12)
    assert len(found) == 12
    assert len(seen) == len(set(seen)) == len({one.policy for one in found})


def test_a_candidate_that_fails_is_said_and_does_not_end_the_study(tmp_path: Path) -> None:
    gone = ("[pair]", "[link.override]\noutages = [{ start_s = 3.0, duration_s = 1e6, cuts = true }]\n[pair]")
    asked = search(tmp_path, scenario=scenario(tmp_path, SHORT, gone), policies=("sync",))
    found = study(asked, place(tmp_path), 2)
    assert all("failed" in one.failure for one in found)
    assert asked.front(found) == []


def test_the_front_leaves_out_what_is_bettered_and_what_is_over_a_limit(tmp_path: Path) -> None:
    asked = search(tmp_path, objectives=("p50-e2e", "cost"), limits={"p99-e2e": 9.0})
    metrics = [(1.0, 5.0, 8.0), (2.0, 5.0, 8.0), (2.0, 3.0, 8.0), (0.5, 1.0, 9.5), (2.0, 3.0, 7.0), (3.0, 2.0, 9.0)]
    every = [
        Candidate(number, str(number), dict(zip(("p50-e2e", "cost", "p99-e2e"), values, strict=True)))
        for number, values in enumerate(metrics)
    ]
    assert [one.number for one in asked.front(every)] == [0, 2, 5]
    nearest = asked.nearest(every)
    assert nearest is not None
    assert nearest.metrics["p99-e2e"] <= 9.0


def test_metrics_are_those_of_the_simulators_report(tmp_path: Path) -> None:
    here = scenario(tmp_path, SHORT)
    ones = [replicate(here, "sync", seed) for seed in (1, 2)]
    said = metrics_of(here, ones)
    e2e_s = sorted(one.finished[0].report.e2e_s for one in ones)
    assert said["p50-e2e"] == pytest.approx(sum(e2e_s) / 2)
    assert said["p99-e2e"] == pytest.approx(e2e_s[0] + 0.99 * (e2e_s[1] - e2e_s[0]))
    assert math.isfinite(said["cost"])
    price = here.target.cost.price_usd_per_hour
    assert price is not None
    busy_s = sum(one.servers_busy_s for one in ones)
    assert said["cost"] == pytest.approx(busy_s / 3600 * price / 32 * 1e6)


def test_a_scenarios_digest_is_of_what_its_figures_depend_on(tmp_path: Path) -> None:
    one = digest(scenario(tmp_path, SHORT))
    assert one == digest(scenario(tmp_path, SHORT, ('title = "a test"', 'title = "another"')))
    assert one != digest(scenario(tmp_path, SHORT, ("ranks = [0.58", "ranks = [0.57")))
    assert one != digest(scenario(tmp_path, SHORT, ("[pair]", "[link.override]\nup.delay_s = 0.5\n[pair]")))
