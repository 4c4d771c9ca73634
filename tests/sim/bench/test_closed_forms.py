"""What can be calculated by hand: rounds, tokens per pass, the seed's robot, bytes over a rate."""

from pathlib import Path

import pytest

from foredraft.edge.estimates import Snapshot
from foredraft.observe.explain import outlook
from foredraft.protocol.averages import WIDTHS
from foredraft_sim.bench.policies.setting import Setting, Times, scaled_pair
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.tokens.synthetic import SyntheticPair
from sim.scenario.scenario_files import scenario, workload

RANKS = "ranks = [0.58, 0.12, 0.06, 0.04, 0.03]"
UNBOUNDED = ("[link]", "[cloud.override]\ntarget_pass.range.context = [0, 1_000_000]\n[link]")


def long_session(folder: Path, acceptance: float, tokens: int) -> Scenario:
    """One session of the robot's times with i.i.d. acceptance."""
    edge = ("[cloud]", "[edge.override]\ndraft_step.range.context = [0, 1_000_000]\n\n[cloud]")
    length = workload(prompt_tokens=1, new_tokens=tokens)
    return scenario(folder, (RANKS, f"ranks = [{acceptance}]"), UNBOUNDED, edge, length)


def rounds_of(pair: SyntheticPair, own: int, begin: int, end: int, gamma: int) -> int:
    """How many synchronous rounds a text takes, walked by hand over the same luck."""
    position = begin
    rounds = 0
    while position < end:
        matched = 0
        while matched < gamma and pair.rank(own, position + matched) == 0:
            matched += 1
        position += matched + 1
        rounds += 1
    return rounds


@pytest.mark.parametrize(("gamma", "acceptance", "tokens"), [(1, 0.9, 1500), (4, 0.6, 1000)])
def test_a_round_takes_drafting_a_round_trip_and_a_pass(
    tmp_path: Path, gamma: int, acceptance: float, tokens: int
) -> None:
    one = replicate(long_session(tmp_path, acceptance, tokens), f"sync:gamma={gamma}", 1)
    report = one.finished[0].report
    round_s = (report.e2e_s - report.ttft_s) / (report.passes - 1)
    assert round_s == pytest.approx(gamma * 0.072 + 0.120 + 0.620, rel=0.005)
    assert one.warnings == ()


def test_one_long_session_has_the_tokens_per_pass_of_independent_acceptance(tmp_path: Path) -> None:
    one = replicate(long_session(tmp_path, 0.9, 8000), "sync:gamma=1", 1)
    assert one.finished[0].report.tokens_per_pass == pytest.approx((1 - 0.9**2) / (1 - 0.9), rel=0.005)


def test_a_session_takes_the_rounds_that_a_walk_by_hand_takes_and_those_meet_the_closed_form(tmp_path: Path) -> None:
    read = long_session(tmp_path, 0.6, 1500)
    assert isinstance(read.pair, SyntheticPair)
    own = read.sampling(1, 0).seed
    simulated = replicate(read, "sync:gamma=4", 1).finished[0].report
    assert simulated.passes == rounds_of(read.pair, own, 1, 1501, 4)
    many = 300_000
    assert many / rounds_of(read.pair, own, 1, 1 + many, 4) == pytest.approx((1 - 0.6**5) / (1 - 0.6), rel=0.005)


def test_the_seeds_synchronous_robot_round_is_1028_ms(tmp_path: Path) -> None:
    report = (
        replicate(scenario(tmp_path, workload(prompt_tokens=8, new_tokens=200)), "sync:gamma=4", 1).finished[0].report
    )
    last_rounds = 3  # the last ones draft less
    assert report.e2e_s - report.ttft_s == pytest.approx((report.passes - 1) * 1.028, abs=last_rounds * 0.288)


def test_streaming_from_the_cloud_takes_a_pass_per_token(tmp_path: Path) -> None:
    report = replicate(scenario(tmp_path), "cloud", 1).finished[0].report
    assert report.tpot_s == pytest.approx(0.620)
    assert report.ttft_s == pytest.approx(2 * 0.120 + 0.620)  # a round trip to say hello, one for the text


@pytest.mark.parametrize("rate_bps", [1_000, 2_000])
def test_a_slow_downlink_delivers_as_many_bytes_as_its_rate(tmp_path: Path, rate_bps: int) -> None:
    slow = ("[pair]", f"[link.override]\ndown.rate_bps = {rate_bps}\n\n[pair]")
    fast_passes = ("[link]", "[cloud.override]\ntarget_pass.base_s = 0.001\nprefill.base_s = 0.001\n\n[link]")
    read = scenario(tmp_path, slow, fast_passes, workload(prompt_tokens=8, new_tokens=200))
    report = replicate(read, "cloud", 1).finished[0].report
    payload = report.bytes_down - 2 * (report.passes + 1)  # the profile has no framing; the count has WebSocket's
    assert report.e2e_s == pytest.approx(payload * 8 / rate_bps, rel=0.02)


GRID = [
    Times(pass_s=1.0, flat_tokens=32, step_s=step_s, round_trip_s=round_trip_s)
    for step_s in (0.02, 0.116, 0.4)
    for round_trip_s in (0.02, 0.2, 1.0, 4.0)
]


def estimates_of(place: Times, acceptance: float) -> Snapshot:
    """What a session there would have learned in the long run."""
    ranks = scaled_pair(acceptance).ranks
    passes_s = (place.pass_s,) * len(WIDTHS)
    return Snapshot(place.round_trip_s, 0.0, place.step_s, place.pass_s, 2.0, 8.0, passes_s, ranks, 99)


@pytest.mark.parametrize("acceptance", [0.3, 0.58, 0.9])
@pytest.mark.parametrize("place", GRID, ids=lambda place: f"{place.step_s:g}-{place.round_trip_s:g}")
def test_what_explain_says_of_each_scheme_holds_in_simulation(place: Times, acceptance: float) -> None:
    """Forms within 15%, bounds below: over draft steps of 0.02 to 0.4 and round trips of 0.02 to 4 passes."""
    said = outlook(estimates_of(place, acceptance), 31)

    def simulated_s(policy: str, tokens: int) -> float:
        (done,) = replicate(Setting(place, acceptance, tokens).scenario(), policy, 1).finished
        return done.report.tpot_s

    assert simulated_s("cloud", 100) == pytest.approx(said.cloud_s, rel=0.01)
    assert simulated_s(f"sync:gamma={said.gamma}", 2500) == pytest.approx(said.sync_s, rel=0.15)
    assert simulated_s(f"seed:gamma={said.gamma}", 2500) >= 0.97 * said.seed_s
    assert simulated_s("ahead", 400) >= 0.97 * said.ahead_s
