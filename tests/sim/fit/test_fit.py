"""Fitting a pair: what is in the records is in the pair, and simulations with it take what replays take."""

import json
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner, Result

from foredraft import RecordError, read_record
from foredraft.cli.main import app
from foredraft.observe.record.reading import Record
from foredraft_sim.fit.check import check
from foredraft_sim.fit.error import MOST_OFF
from foredraft_sim.fit.fit import LEAST, fit
from foredraft_sim.fit.pair_file import render
from foredraft_sim.fit.published import after, published_pair, shown
from foredraft_sim.fit.topics import topics_of
from foredraft_sim.replay.replay import Changes
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import Scenario, read_scenario
from foredraft_sim.scenario.simulated_record import complete
from foredraft_sim.tokens.fitted import FittedPair
from foredraft_sim.tokens.recorded import Replays
from paths import ROOT
from sim.fit.test_fitted_pair import PAIR, write
from sim.scenario.scenario_files import scenario, workload

PAIRS = ROOT / "examples" / "pairs"
MODELS = """\
policies = ["sync:gamma=4"]
[edge]
profile = "robot-5-draft"
[cloud]
profile = "robot-5-target"
[link]
profile = "robot-5"
[pair]
kind = "models"
[workload]
requests = 10
prompts = [
  "def parse(text):\\n",
  "class Table:\\n    def __init__(self",
  "import os\\n\\ndef read(path):\\n",
  "    for name in names:\\n",
]
new_tokens = 80
end_marks = false
[sampling]
temperature = 0.8
"""


def record_of(read: Scenario, policy: str, file: Path, *, private: bool = False) -> Record:
    done = replicate(read, policy, 1, log=True)
    file.write_bytes(complete(read, done.record, done.recorded, private=private))
    return read_record(file)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Sixty texts of the pair of ``test_fitted_pair``, which has runs and topics."""
    folder = tmp_path_factory.mktemp("recorded")
    text = (
        write(folder).read_text().replace("requests = 3", "requests = 60").replace("new_tokens = 24", "new_tokens = 60")
    )
    (folder / "scenario.toml").write_text(text)
    return record_of(read_scenario(folder / "scenario.toml"), "cloud", folder / "r.rec")


def after_of(texts: list[list[bool]]) -> tuple[float, float, float]:
    """How often right in all, after a wrong token, and after a right one."""
    pairs = [pair for text in texts for pair in pairwise(text)]
    wrong, right = ([b for a, b in pairs if a == before] for before in (False, True))
    flat = [one for text in texts for one in text]
    return sum(flat) / len(flat), sum(wrong) / len(wrong), sum(right) / len(right)


def rights_of(record: Record) -> list[list[bool]]:
    return [[one.rank == 0 for one in text.positions] for text in Replays(record).texts]


def drawn_from(pair: FittedPair, texts: int, tokens: int) -> list[list[bool]]:
    found = []
    for seed in range(texts):
        said = pair.spoken(seed, 8)
        at = range(8, 8 + tokens)
        found.append([said.truth(one) in [guess.token for guess in said.guesses(one, 1)] for one in at])
    return found


def test_a_fitted_pairs_texts_are_right_as_often_as_the_records_after_wrong_and_after_right_tokens(
    recorded: Record,
) -> None:
    pair = fit([recorded])
    theirs, ours = after_of(rights_of(recorded)), after_of(drawn_from(pair, 400, 60))
    assert ours == pytest.approx(theirs, abs=0.03)
    assert theirs[2] > theirs[1] + 0.3  # there are runs


def test_a_fitted_pair_has_the_exits_and_the_topics_of_the_record(recorded: Record) -> None:
    pair = fit([recorded])
    assert (pair.exits, pair.layers, pair.vocab_size) == (PAIR.exits, PAIR.layers, PAIR.vocab_size)
    dull = sum(PAIR.topic_of(text.sampling.seed) for text in Replays(recorded).texts) / 60
    assert sorted(topic.share for topic in pair.topics) == pytest.approx([dull, 1.0 - dull], abs=0.06)
    sure = {exit_[1] for topic in pair.topics for state in topic.states for one in state for exit_ in one.exits}
    assert sure == {0.9, 0.95, 0.6, 0.7, 0.2, 0.4}


def test_a_private_record_fits_the_same_pair(tmp_path: Path) -> None:
    read = scenario(tmp_path, workload(prompt_tokens=8, new_tokens=60, requests=3))
    plain, private = (record_of(read, "cloud", tmp_path / f"{hide}.rec", private=hide) for hide in (False, True))
    assert private.setup.private
    assert seen_in(fit([plain])) == seen_in(fit([private]))


def seen_in(pair: FittedPair) -> list[object]:
    """All but which wrong token an exit named: a private record does not tell."""
    return [
        [
            *(topic.share, topic.after_wrong, topic.after_right, topic.head),
            *sorted((one.weight, one.rank, one.says, tuple(s for _, s in one.exits)) for one in outcomes),
        ]
        for topic in pair.topics
        for outcomes in topic.states
    ]


def test_texts_of_one_kind_make_one_topic_and_of_two_kinds_two() -> None:
    draw = Random(1)

    def texts(count: int, right: float) -> list[list[bool]]:
        return [[draw.random() < right for _ in range(80)] for _ in range(count)]

    assert len(topics_of(texts(30, 0.6))) == 1
    assert topics_of([*texts(20, 0.5), *texts(8, 0.9)]) in ([list(range(20)), list(range(20, 28))],)
    assert topics_of(texts(1, 0.5)) == [[0]]


@pytest.mark.parametrize("accepted", [(0.81, 0.74, 0.70, 0.68, 0.66), (0.58, 0.34, 0.22, 0.15, 0.11), (0.7,)])
def test_a_published_pair_shows_the_published_rates(accepted: tuple[float, ...]) -> None:
    """Counted round by round in its texts, as whoever published them did."""
    texts = drawn_from(published_pair(accepted, "a paper", 32), 60, 400)
    rounds, right = 0, [0] * len(accepted)
    for text in texts:
        at = 1
        while at + len(accepted) < len(text):
            run = 0
            while run < len(accepted) and text[at + run]:
                right[run] += 1
                run += 1
            at, rounds = at + run + 1, rounds + 1
    counted = [one / rounds for one in right]
    assert counted == pytest.approx(shown(accepted), abs=0.02)
    assert counted == pytest.approx(accepted, abs=0.05)


def test_rates_that_fall_slowly_say_that_right_tokens_come_in_runs() -> None:
    wrong, right = after((0.81, 0.74, 0.70, 0.68, 0.66))
    assert (wrong, right) == pytest.approx((0.58, 0.95), abs=0.01)
    assert after((0.6, 0.36, 0.216)) == pytest.approx((0.6, 0.6))


@pytest.mark.timeout(600)
def test_simulated_time_per_token_is_within_3_percent_of_the_replayed_on_records_of_the_bundled_pair(
    tmp_path: Path,
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "models.toml").write_text(MODELS)
    record = record_of(read_scenario(tmp_path / "models.toml"), "sync:gamma=4", tmp_path / "r.rec")
    changes = [Changes(policy=policy) for policy in ("sync:gamma=4", "seed:gamma=4", "auto")]
    checked = check([(record, fit([record]))], changes, tokens=4000)
    off = {one.policy: one.off for one in checked}
    assert all(abs(one) <= MOST_OFF for one in off.values()), off
    assert all(one.half < 0.06 for one in checked)


# The command line


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_fit_pair_writes_the_pair_and_says_how_far_it_is_off(recorded: Record, tmp_path: Path) -> None:
    out = tmp_path / "mine.toml"
    asked = ("--policy", "sync", "--link", "lte", "--tokens", "100")
    done = run("fit-pair", recorded.path, "--out", out, *asked, "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == (1 if said["missed"] else 0)
    where = [("sync", "the recorded link"), ("sync", "lte")]
    assert [(one["policy"], one["link"]) for one in said["checked"]] == [*where, *where]
    for one in said["checked"]:
        assert one["off"] == pytest.approx(one["simulated_s"] / one["replayed_s"] - 1.0)
        assert abs(one["off"]) < 0.1
    assert "# sync over lte: " in out.read_text()
    (tmp_path / "fleet").mkdir()
    again = write(tmp_path / "fleet", pair=out.read_text())
    pair = read_scenario(again).pair
    assert isinstance(pair, FittedPair)
    assert render(pair, []) == render(fit([recorded]), [])


def test_fit_pair_turns_published_rates_into_a_pair(tmp_path: Path) -> None:
    out = tmp_path / "p.toml"
    done = run("fit-pair", "--accepted", "0.74,0.54,0.41", "--source", "a paper", "--out", out)
    assert done.exit_code == 0, done.output
    assert "drafted token 2: published 0.540, the pair 0.5" in done.stdout
    assert 'source = "a paper"' in out.read_text()


@pytest.mark.parametrize("example", sorted(one.name for one in PAIRS.glob("*.toml")))
def test_the_examples_are_what_the_command_writes_of_the_rates_in_their_first_lines(
    tmp_path: Path, example: str
) -> None:
    text = (PAIRS / example).read_text()
    rates = text.partition("\n")[0].rpartition(" ")[2]
    source = text.partition('source = "')[2].partition('"')[0]
    assert source.partition(": ")[2].startswith("github.com/")
    out = tmp_path / example
    assert run("fit-pair", "--accepted", rates, "--source", source, "--out", out).exit_code == 0
    assert out.read_text() == text
    (tmp_path / "scenario").mkdir()
    pair = read_scenario(write(tmp_path / "scenario", pair=text)).pair
    assert isinstance(pair, FittedPair)
    assert pair.source == source


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give records to fit a pair to, or --accepted"),
        (["r.rec", "--accepted", "0.5"], "give records to fit a pair to, or --accepted"),
        (["none.rec"], "none.rec: cannot be read"),
        (["r.rec"], f"too few to fit a pair to (at least {LEAST})"),
        (["r.rec", "--out", "none/p.toml"], "there is no folder none"),
        (["r.rec", "--policy", "sinc"], "did you mean 'sync'?"),
        (["--accepted", "0.5,0.6"], "none above the one before"),
        (["--accepted", "half"], "--accepted 'half': write how often"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    record_of(scenario(tmp_path), "cloud", Path("r.rec"))
    before = sorted(tmp_path.iterdir())
    done = run("fit-pair", *arguments)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_records_of_different_models_are_refused(recorded: Record, tmp_path: Path) -> None:
    other = record_of(scenario(tmp_path), "cloud", tmp_path / "r.rec")
    with pytest.raises(RecordError, match=r"r\.rec: its exits is \(8, 16, 24\), and in .*same models"):
        fit([recorded, other])
