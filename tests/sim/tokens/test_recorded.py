"""Pairs: recorded ones say again what models said; synthetic ones have the statistics that they were given."""

from collections import Counter
from pathlib import Path

import pytest

from foredraft.observe.record import read_record
from foredraft_sim.errors import ScenarioError
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.simulated_record import complete
from foredraft_sim.tokens.synthetic import SyntheticPair
from sim.scenario.scenario_files import PAIR, scenario, workload

POLICIES = ("cloud", "sync", "seed", "ahead")
RECORDED = (PAIR, 'kind = "recorded"\nfile = "r.rec"')


def record(read: Scenario, policy: str, file: Path, seed: int = 1) -> Path:
    """What ``foredraft simulate --record`` writes."""
    done = replicate(read, policy, seed, log=True)
    file.write_bytes(complete(read, done.record, done.recorded))
    return file


def test_a_record_tells_of_every_token_what_draft_and_exits_say_of_it(tmp_path: Path) -> None:
    """With ``cloud`` the draft is never asked in the session."""
    read = scenario(tmp_path)
    assert isinstance(read.pair, SyntheticPair)
    session = read_record(record(read, "cloud", tmp_path / "r.rec")).sessions[0]
    seed = session.began.seed
    for one in session.positions:
        rank = read.pair.rank(seed, one.position)
        assert one.token == read.pair.truth(seed, one.position)
        assert one.rank == (rank if rank < len(read.pair.ranks) else -1)
        assert one.guesses[0] == (read.pair.choice(seed, one.position, 0), 0.58)
        assert one.predictions == tuple(read.pair.predict(seed, layer, one.position) for layer, _ in read.pair.exits)
        assert one.right == tuple(said == one.token for said, _ in one.predictions)
    assert len(session.positions) == 24


@pytest.mark.parametrize("policy", POLICIES)
def test_a_simulation_of_a_recorded_pair_writes_the_recorded_text(tmp_path: Path, policy: str) -> None:
    session = read_record(record(scenario(tmp_path), "cloud", tmp_path / "r.rec")).sessions[0]
    report = replicate(scenario(tmp_path, RECORDED, workload(new_tokens=20)), policy, 1, texts=True).finished[0].report
    assert report.tokens == session.tokens[:20]
    if policy == "seed":
        assert report.hints > 0


def test_recorded_models_are_accepted_as_the_models_are(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from engines.tiny_models import save_model

    save_model(tmp_path / "target", seed=1)
    save_model(tmp_path / "draft", seed=2, num_hidden_layers=1)
    sampling = "[sampling]\ntemperature = 0.9\n"
    models = 'kind = "models"\ntarget = "target"\ndraft = "draft"'
    real = scenario(tmp_path, (PAIR, models), workload(prompts='["one two"]', new_tokens=20), more=sampling)
    record(real, "cloud", tmp_path / "r.rec", seed=5)
    again = scenario(tmp_path, RECORDED, workload(new_tokens=20), more=sampling)
    for policy in ("cloud", "sync"):
        ours, theirs = (replicate(read, policy, 5, texts=True).finished[0].report for read in (again, real))
        assert ours.tokens == theirs.tokens
        assert (ours.passes, ours.drafted, ours.accepted) == (theirs.passes, theirs.drafted, theirs.accepted)
        assert ours.e2e_s == pytest.approx(theirs.e2e_s)


def test_what_is_wrong_with_a_recorded_pair_is_said_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"pair\.file = 'r\.rec': .*r\.rec: cannot be read: No such file"):
        scenario(tmp_path, RECORDED, workload(new_tokens=4))
    record(scenario(tmp_path), "cloud", tmp_path / "r.rec")
    with pytest.raises(ScenarioError, match=r"workload\.new_tokens: up to 25 tokens, and session 0 .* has 24"):
        scenario(tmp_path, RECORDED, workload(new_tokens=25))


def test_ranks_may_change_with_the_position() -> None:
    pair = SyntheticPair(ranks=(1.0,), ranks_from=((100, (0.0, 1.0)), (200, (0.5,))))
    assert {pair.rank(1, position) for position in range(100)} == {0}
    assert {pair.rank(1, position) for position in range(100, 200)} == {1}
    later = Counter(pair.rank(1, position) for position in range(200, 2200))
    assert later[0] / 2000 == pytest.approx(0.5, abs=0.04)
    with pytest.raises(ValueError, match="must ascend"):
        SyntheticPair(ranks=(1.0,), ranks_from=((5, (1.0,)), (5, (1.0,))))


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 3.0])
def test_exits_agree_as_often_as_they_were_told_whatever_they_claim(overconfidence: float) -> None:
    pair = SyntheticPair(ranks=(0.6,), exits=((8, 0.7),), overconfidence=overconfidence)
    seen = [(pair.predict(1, 8, position), pair.truth(1, position)) for position in range(4000)]
    agreement = sum(token == right for (token, _), right in seen) / len(seen)
    claimed = sum(confidence for (_, confidence), _ in seen) / len(seen)
    assert agreement == pytest.approx(0.7, abs=0.03)
    assert (claimed > agreement + 0.03) == (overconfidence > 1.0)
    assert (claimed < agreement - 0.03) == (overconfidence < 1.0)
