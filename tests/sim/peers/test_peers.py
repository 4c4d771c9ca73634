"""Published schemes as policies: the text is the target's, and each does what its paper says it does."""

from dataclasses import replace
from functools import cache

import pytest

from foredraft.edge.estimates import Estimates
from foredraft.edge.session_report import SessionReport
from foredraft.edge.state import EdgeState
from foredraft.protocol.sampling import REJECTION, StopRules
from foredraft_sim.bench.policies.peers import PEERS, best_of, specs, suites, trials
from foredraft_sim.bench.policies.setting import Setting, Times, try_policy
from foredraft_sim.bench.policies.suites import ROBOT
from foredraft_sim.peers.heuristic import Heuristic
from foredraft_sim.peers.pipesd import PipeSD
from foredraft_sim.peers.specstop import SpecStop
from foredraft_sim.scenario.finished import Finished
from foredraft_sim.scenario.replications import replicate

SHORT = Setting(ROBOT, new_tokens=64)


@cache
def finished(policy: str, setting: Setting = SHORT) -> Finished:
    return replicate(setting.scenario(), policy, 1).finished[0]


def told(policy: str, setting: Setting = SHORT) -> SessionReport:
    return finished(policy, setting).report


@pytest.mark.parametrize("peer", sorted(PEERS))
@pytest.mark.parametrize("where", [SHORT, replace(SHORT, acceptance=0.95), replace(SHORT, acceptance=0.2)])
def test_a_peers_text_is_the_targets(peer: str, where: Setting) -> None:
    assert finished(PEERS[peer], where).digest == finished("cloud", where).digest


@pytest.mark.parametrize("peer", sorted(PEERS))
def test_a_peer_by_rejection_sampling_has_the_same_luck_and_sends_more(peer: str) -> None:
    noise, rejection = told(PEERS[peer]), told(PEERS[peer], replace(SHORT, rule="rejection"))
    assert rejection.acceptance == REJECTION
    assert rejection.tokens_per_pass == pytest.approx(noise.tokens_per_pass, rel=0.1)
    assert rejection.bytes_up > 1.5 * noise.bytes_up


def test_all_places_of_the_bench_take_the_rule() -> None:
    asked = {trial.where for suite in suites(True, ("lan",), "rejection") for trial in suite.trials}
    assert {where.rule for where in asked if isinstance(where, Setting)} == {"rejection"}


@pytest.mark.parametrize("peer", ["specedge", "acespec", "saguaro"])
def test_what_drafts_for_the_verdict_to_come_is_faster_than_synchronous_rounds(peer: str) -> None:
    report, sync = told(PEERS[peer]), told("sync")
    assert report.predraft_hits > 0
    assert report.e2e_s < 0.95 * sync.e2e_s


def test_a_tree_brings_more_tokens_per_pass_than_a_chain() -> None:
    assert told(PEERS["specedge"]).tokens_per_pass > 1.05 * told("sync").tokens_per_pass


def test_batches_of_a_chain_are_on_their_way_while_the_rest_is_drafted() -> None:
    slow = Setting(Times(pass_s=0.05, flat_tokens=32, step_s=0.05, round_trip_s=0.05), 0.95, 64)
    one, many = (told(f"{PEERS['pipesd']}:gamma=4,batch={batch}", slow) for batch in (4, 1))
    assert many.passes == one.passes  # a chain is verified once, whole
    assert many.bytes_up > one.bytes_up


def test_an_unsure_chain_ends_at_either_threshold() -> None:
    state = EdgeState([1], StopRules(64))

    def chain(*probabilities: float) -> bool:
        state.tree.clear()
        node = state.root
        for token, probability in enumerate(probabilities):
            node = state.tree.add(node, token, probability)
        state._path_probabilities = state._likeliest = None
        return PipeSD(gamma=8, token=0.2, chain=0.1)._is_over(state)

    assert not chain()
    assert not chain(0.9, 0.5)
    assert chain(0.9, 0.1)
    assert chain(0.5, 0.5, 0.5, 0.5)
    assert chain(*[1.0] * 8)


def test_a_pipeline_has_the_next_chain_at_the_cloud_before_the_verdict() -> None:
    sure = Setting(Times(pass_s=0.3, flat_tokens=32, step_s=0.01, round_trip_s=0.3), 1.0, 64)
    pipeline, sync = told(PEERS["picospec"], sure), told("sync", sure)
    assert pipeline.passes <= sync.passes + 2
    assert pipeline.e2e_s < 0.75 * sync.e2e_s


def test_a_longer_way_makes_longer_chains() -> None:
    def gamma(round_trip_s: float) -> int:
        state = EdgeState([1], StopRules(64))
        state.estimates = Estimates()
        for _ in range(20):
            state.estimates.round_trip_s.take(round_trip_s)
            state.estimates.draft_step_s.take(0.01)
        for number in range(40):
            state.estimates.saw_guesses([(0.8, number % 5 < 3)])
            state.estimates.saw_pass(4, 0.03, 0.0, 3)
        return SpecStop().gamma(state)

    assert gamma(0.01) < gamma(1.0)


def test_the_heuristic_goes_two_up_and_one_down() -> None:
    policy, state = Heuristic(), EdgeState([1], StopRules(64))
    lengths = []
    for drafted, accepted in ((5, 5), (7, 7), (9, 3), (8, 0)):
        state.tally.passes += 1
        state.tally.drafted += drafted
        state.tally.accepted += accepted
        policy.step(state)
        lengths.append(policy.gamma)
    assert lengths == [7, 9, 8, 7]


def test_every_part_of_the_benchmark_judges_what_it_tried() -> None:
    for suite in suites(quick=True):
        assert suite.trials
        assert suite.name != "links"
    [over] = [suite for suite in suites(quick=True, more_links=["lte", "wifi"]) if suite.name == "links"]
    assert {trial.where.scenario().link.name for trial in over.trials} == {"lte", "wifi"}  # type: ignore[union-attr,call-arg]
    where = replace(SHORT, new_tokens=16)
    outcomes = {trial: try_policy(where, trial.policy, trial.seed) for trial in trials([where], [1])}
    found = best_of(outcomes, where, [1])
    assert set(found) == set(specs(where)) >= {"cloud", "auto", *PEERS}
    assert all(taken_s > 0.0 for taken_s, _ in found.values())
