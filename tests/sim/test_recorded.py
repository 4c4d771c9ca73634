"""Pairs: recorded ones say again what models said; synthetic ones have the statistics that they were given."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from foredraft.core.ports import Guess
from foredraft.core.sampling import Sampling
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft_sim.emulation import replicate
from foredraft_sim.errors import ScenarioError
from foredraft_sim.recorded import (
    RecordedText,
    Recording,
    models_of,
    read_recording,
    record_text,
    write_recording,
)
from foredraft_sim.sources import record
from foredraft_sim.synthetic import SyntheticPair
from sim.scenario_files import PAIR, scenario, workload

POLICIES = ("cloud", "sync", "seed", "ahead")


def truth(position: int) -> int:
    return position * 31 % 97


def foresight(layer: int, position: int) -> tuple[int, float]:
    return (truth(position), 0.9) if (layer + position) % 4 else (2, 0.7)


def scripted_recording(count: int) -> Recording:
    target = ScriptedTarget(truth, foresight=foresight, exits=(2, 4), vocab_size=100)
    drafter = ScriptedDrafter(
        lambda position, width: [Guess(truth(position) if position % 3 else 1, 0.6), Guess(98, 0.2)]
    )
    return Recording(models_of(target.card), (asyncio.run(record_text(target, drafter, [5, 6, 7], Sampling(), count)),))


def test_a_recording_holds_the_text_the_guesses_and_what_the_exits_said() -> None:
    text = scripted_recording(6).texts[0]
    assert text.tokens == tuple(truth(position) for position in range(3, 9))
    assert text.guesses[0] == ((1, 0.6), (98, 0.2))
    assert text.guesses[1][0] == (truth(4), 0.6)
    assert text.readings[1] == (foresight(2, 4), foresight(4, 4))


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    recording = scripted_recording(5)
    (tmp_path / "r.jsonl").write_bytes(write_recording(recording))
    assert read_recording(tmp_path / "r.jsonl") == recording


@pytest.mark.parametrize("policy", POLICIES)
def test_a_simulation_of_a_recording_writes_the_recorded_text(tmp_path: Path, policy: str) -> None:
    recording = scripted_recording(30)
    (tmp_path / "r.jsonl").write_bytes(write_recording(recording))
    change = (PAIR, 'kind = "recorded"\nfile = "r.jsonl"'), workload(new_tokens=24)
    report = replicate(scenario(tmp_path, *change), policy, 1, texts=True).finished[0].report
    assert tuple(report.tokens) == recording.texts[0].tokens[:24]
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
    (tmp_path / "r.jsonl").write_bytes(write_recording(record(real, 5)))
    again = scenario(tmp_path, (PAIR, 'kind = "recorded"\nfile = "r.jsonl"'), workload(new_tokens=20), more=sampling)
    for policy in ("cloud", "sync"):
        ours, theirs = (replicate(read, policy, 5, texts=True).finished[0].report for read in (again, real))
        assert ours.tokens == theirs.tokens
        assert (ours.passes, ours.drafted, ours.accepted) == (theirs.passes, theirs.drafted, theirs.accepted)
        assert ours.e2e_s == pytest.approx(theirs.e2e_s)


def test_what_is_wrong_with_a_recording_is_said_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    change = (PAIR, 'kind = "recorded"\nfile = "r.jsonl"')
    with pytest.raises(ScenarioError, match=r"r\.jsonl: cannot be read: No such file"):
        scenario(tmp_path, change, workload(new_tokens=4))
    good = write_recording(scripted_recording(5))
    file.write_bytes(good + b'{"prompt": [1]}\n')
    with pytest.raises(ScenarioError, match=r"r\.jsonl:3: not a recording: .*`tokens`"):
        scenario(tmp_path, change, workload(new_tokens=4))
    file.write_bytes(good)
    with pytest.raises(ScenarioError, match=r"workload\.new_tokens: up to 9 tokens, and text 1 .* has 5"):
        scenario(tmp_path, change, workload(new_tokens=9))
    with pytest.raises(ValueError, match="must be as many"):
        RecordedText((1,), (2, 3), ((),), ((),))


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
    seen = [(pair.foresee(1, 8, position), pair.truth(1, position)) for position in range(4000)]
    agreement = sum(token == right for (token, _), right in seen) / len(seen)
    claimed = sum(confidence for (_, confidence), _ in seen) / len(seen)
    assert agreement == pytest.approx(0.7, abs=0.03)
    assert (claimed > agreement + 0.03) == (overconfidence > 1.0)
    assert (claimed < agreement - 0.03) == (overconfidence < 1.0)
