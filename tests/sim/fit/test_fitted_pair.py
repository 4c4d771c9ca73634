"""A fitted pair: texts with topics, runs and a head, the same whatever is asked, and whatever the policy."""

import hashlib
import pickle
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from foredraft.cli.main import app
from foredraft_sim.errors import ScenarioError
from foredraft_sim.fit.pair_file import render
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import read_scenario
from foredraft_sim.tokens.fitted import OTHER, RIGHT, FittedPair, Outcome, Topic
from foredraft_sim.tune.search import digest
from sim.scenario.scenario_files import ROBOT, workload

EXITS = ((RIGHT, 0.9), (RIGHT, 0.95))
SURE = (Outcome(9.0, 0, (0.9, 0.05), EXITS), Outcome(1.0, 1, (0.8, 0.1), ((0, 0.6), (RIGHT, 0.7))))
UNSURE = (Outcome(1.0, 0, (0.3, 0.2, 0.1), EXITS), Outcome(4.0, -1, (0.3, 0.2), ((OTHER, 0.2), (1, 0.4))))
RUNS = Topic(
    share=0.75,
    states=(UNSURE, SURE),
    after_wrong=((0.9, 0.1), (0.6, 0.4)),
    after_right=((0.3, 0.7), (0.05, 0.95)),
    head=((1.0, 0.0), (0.5, 0.5)),
)
DULL = Topic(share=0.25, states=(UNSURE,), after_wrong=((1.0,),), after_right=((1.0,),), head=((1.0,),))
PAIR = FittedPair(topics=(RUNS, DULL), layers=32, exits=(8, 16), vocab_size=1000, source="a test")
POLICIES = ("cloud", "sync:gamma=4", "seed:gamma=3", "ahead", "auto")
LOSES = """
[link.override]
loss = { good_s = 2.0, bad_s = 0.4, bad_loss = 0.5, rto_s = 0.2, rto_max_s = 1.0 }
outages = [{ start_s = 3.0, duration_s = 1.0, cuts = true }]
"""


def write(folder: Path, *, more: str = "", pair: str = render(PAIR, ["a test"])) -> Path:
    """A scenario with the pair in a file of its own."""
    (folder / "mine.toml").write_text(pair)
    head, _, rest = ROBOT.replace(*workload(prompt_tokens=8, new_tokens=24, requests=3)).partition("[pair]")
    file = folder / "scenario.toml"
    file.write_text('pair = "mine.toml"\n' + head + rest[rest.index("[workload]") :] + more)
    return file


def rights(seed: int, count: int, start: int = 8) -> list[bool]:
    said = PAIR.spoken(seed, start)
    return [any(guess.token == said.truth(at) for guess in said.guesses(at, 1)) for at in range(start, start + count)]


@given(st.integers(0, 1 << 32), st.lists(st.integers(5, 90), min_size=1, max_size=30))
def test_what_is_said_at_a_position_does_not_depend_on_what_was_asked_before(seed: int, positions: list[int]) -> None:
    asked, other = PAIR.spoken(seed, 5), FittedPair(**msgspec.structs.asdict(PAIR)).spoken(seed, 5)
    for position in range(91):
        other.guesses(position, 3)
    for position in positions:
        assert asked.truth(position) == other.truth(position)
        assert asked.guesses(position, 3) == other.guesses(position, 3)
        assert asked.predict(8, position) == other.predict(8, position)


def test_an_exit_names_the_targets_token_a_choice_of_the_draft_or_another() -> None:
    named: dict[float, set[str]] = {}
    for seed in range(30):
        said = PAIR.spoken(seed, 0)
        for position in range(40):
            guesses = [guess.token for guess in said.guesses(position, 3)]
            for token, sure in (said.predict(8, position), said.predict(16, position)):
                where = "right" if token == said.truth(position) else "choice" if token in guesses else "other"
                named.setdefault(sure, set()).add(where)
    right, choice, other = {"right"}, {"choice"}, {"other"}
    assert named == {0.9: right, 0.95: right, 0.7: right, 0.6: choice, 0.4: choice, 0.2: other}


def test_right_tokens_come_in_runs_within_texts_of_the_topic_that_has_them() -> None:
    after: dict[tuple[int, bool], list[bool]] = {}
    for seed in range(300):
        text = rights(seed, 60)
        for before, right in pairwise(text[2:]):
            after.setdefault((PAIR.topic_of(seed), before), []).append(right)
    share = {key: sum(ones) / len(ones) for key, ones in after.items()}
    assert share[0, True] > share[0, False] + 0.3
    assert share[1, True] == pytest.approx(share[1, False], abs=0.03) == pytest.approx(0.2, abs=0.03)
    assert sum(PAIR.topic_of(seed) for seed in range(2000)) / 2000 == pytest.approx(0.25, abs=0.03)


def test_a_text_begins_as_the_head_says_wherever_its_prompt_ends() -> None:
    seeds = [seed for seed in range(1500) if PAIR.topic_of(seed) == 0]
    for start in (0, 8, 300):
        first, second = zip(*(rights(seed, 2, start) for seed in seeds), strict=True)
        assert sum(first) / len(seeds) == pytest.approx(0.2, abs=0.03)
        assert sum(second) / len(seeds) == pytest.approx(0.5 * 0.2 + 0.5 * 0.9, abs=0.04)


def test_the_file_of_a_pair_is_the_pair(tmp_path: Path) -> None:
    assert read_scenario(write(tmp_path)).pair == PAIR


@pytest.mark.parametrize("more", ["", LOSES])
def test_all_policies_write_the_same_text(tmp_path: Path, more: str) -> None:
    read = read_scenario(write(tmp_path, more=more))
    done = {policy: replicate(read, policy, 1, texts=True).finished for policy in POLICIES}
    texts = {policy: [one.report.tokens for one in finished] for policy, finished in done.items()}
    assert len(texts["cloud"]) == 3
    assert all(text == texts["cloud"] for text in texts.values())
    truths = [[PAIR.truth(read.sampling(1, request).seed, 8 + at) for at in range(24)] for request in range(3)]
    assert texts["cloud"] == truths


def test_the_same_seed_is_the_same_log_and_another_is_not(tmp_path: Path) -> None:
    read = read_scenario(write(tmp_path, more=LOSES))
    logs = [hashlib.sha256(replicate(read, "auto", seed, log=True).log).hexdigest() for seed in (1, 1, 2)]
    assert logs[0] == logs[1] != logs[2]


def test_it_says_the_same_in_another_process() -> None:
    there = pickle.loads(pickle.dumps(PAIR))
    assert there == PAIR
    said = [[pair.spoken(7, 3).guesses(position, 3) for position in range(40)] for pair in (PAIR, there)]
    assert said[0] == said[1]


def test_a_study_of_it_is_a_study_of_its_statistics(tmp_path: Path) -> None:
    other = msgspec.structs.replace(PAIR, topics=(msgspec.structs.replace(RUNS, share=0.5), DULL))
    digests = []
    for number, pair in enumerate((PAIR, PAIR, other)):
        (tmp_path / str(number)).mkdir()
        digests.append(digest(read_scenario(write(tmp_path / str(number), pair=render(pair, [])))))
    assert digests[0] == digests[1] != digests[2]


def test_simulate_takes_it_and_says_what_it_was_fitted_to(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["simulate", str(write(tmp_path)), "--policy", "auto", "--seed", "1"])
    assert done.exit_code == 0, done.output
    assert "pair: fitted to a test; topics: 75%, 25%" in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("share = 0.75", "share = -1.0", "share must be above 0"),
        ("[0.90000, 0.10000]", "[0.9, 0.3]", "2 probabilities with a sum of 1"),
        ("exits = [8, 16]", "exits = [8]", "must tell of 1 exits"),
        ("[9, 0,", "[0, 0,", "a weight above 0"),
        ("layers = 32", "layers = 12", "exits must ascend within the 12 layers"),
        ("vocab_size = 1000", "vocab_size = 8", "vocab_size must be above"),
        ('source = "a test"', 'sauce = "a test"', "did you mean 'source'"),
    ],
)
def test_a_pair_that_cannot_be_is_refused_by_name(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = render(PAIR, [])
    assert old in text
    with pytest.raises(ScenarioError, match=r"mine\.toml") as refused:
        read_scenario(write(tmp_path, pair=text.replace(old, new)))
    assert said in str(refused.value)
