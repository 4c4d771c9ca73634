"""The error on texts that a pair was not fitted to, and how much of an error is luck."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from foredraft import RecordError, read_record
from foredraft.cli.main import app
from foredraft.observe.record.reading import Record
from foredraft_sim.fit.check import check
from foredraft_sim.fit.error import MOST_OFF, Checked, Compared
from foredraft_sim.fit.fit import fit
from foredraft_sim.fit.held_out import held_out
from foredraft_sim.fit.pair_file import render
from foredraft_sim.replay.replay import Changes
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import read_scenario
from foredraft_sim.scenario.simulated_record import complete
from foredraft_sim.tokens.fitted import Topic
from sim.fit.test_fitted_pair import DULL, PAIR, RUNS, write
from sim.scenario.scenario_files import scenario

SYNC = [Changes(policy="sync:gamma=4")]


def record_of(folder: Path, topic: Topic, texts: int) -> Record:
    """Texts of one topic, 40 tokens each."""
    folder.mkdir()
    file = write(folder, pair=render(msgspec.structs.replace(PAIR, topics=(topic,)), []))
    file.write_text(
        file.read_text().replace("requests = 3", f"requests = {texts}").replace("new_tokens = 24", "new_tokens = 40")
    )
    read = read_scenario(file)
    done = replicate(read, "cloud", 1, log=True)
    (folder / "r.rec").write_bytes(complete(read, done.record, done.recorded))
    return read_record(folder / "r.rec")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Two kinds of traffic: one where the draft is often right, and one where it seldom is."""
    folder = tmp_path_factory.mktemp("records")
    return [record_of(folder / "runs", RUNS, 12), record_of(folder / "dull", DULL, 12)]


def test_each_text_of_a_record_is_held_out_once_and_the_others_are_fitted(records: list[Record]) -> None:
    parts = held_out(records[:1])
    numbers = [session.number for record, _ in parts for session in record.sessions]
    assert sorted(numbers) == [session.number for session in records[0].sessions]
    assert [len(record.sessions) for record, _ in parts] == [3, 3, 2, 2, 2]
    for record, pair in parts:
        assert pair.source.startswith(f"{12 - len(record.sessions)} recorded texts")


def test_of_several_records_whole_ones_are_held_out(records: list[Record]) -> None:
    (one, without_one), (other, without_other) = held_out(records)
    assert [one, other] == records
    assert without_one == fit([records[1]])
    assert without_other == fit([records[0]])


def test_traffic_that_was_not_fitted_shows_in_the_held_out_error_and_in_no_other(records: list[Record]) -> None:
    pair = fit(records)
    (known,) = check([(record, pair) for record in records], SYNC, tokens=4000)
    (other,) = check(held_out(records), SYNC, tokens=2000, held_out=True)
    assert abs(known.off) < 2 * MOST_OFF
    assert not known.held_out
    lowest, highest = other.plain()["groups"]
    assert lowest < -0.2
    assert highest > 0.2
    assert other.half > 3 * known.half


def test_luck_is_that_of_simulated_texts_and_of_held_out_texts_how_far_each_is_off(tmp_path: Path) -> None:
    report = replicate(scenario(tmp_path), "cloud", 1).finished[0].report

    def compared(replayed_s: float, *simulated_s: float) -> Compared:
        return Compared(*(replace(report, ttft_s=1.0, e2e_s=1.0 + one) for one in (replayed_s, *simulated_s)))

    def checked(held: bool, *texts: Compared) -> Checked:
        return Checked("sync", "lte", held, (texts,))

    steady = compared(10.0, 11.0, 11.0), compared(10.0, 9.0, 9.0)
    assert checked(False, *steady).off == checked(True, *steady).off == 0.0
    assert checked(False, *steady).half == 0.0
    # Each is off by a second of ten, in opposite directions: by hand, with Student's 12.706 of one degree of freedom.
    assert checked(True, *steady).half == pytest.approx(12.706 * 2.0 / 20.0)
    # Slow devices are no luck: all took ten times as long, replayed and simulated.
    assert checked(True, compared(10.0, 10.5, 10.5), compared(100.0, 105.0, 105.0)).half == pytest.approx(0.0, abs=1e-9)
    lucky = checked(False, compared(10.0, 9.0, 11.0), compared(10.0, 9.0, 11.0))
    assert lucky.half == pytest.approx(4.303 * 2.0**0.5 / 20.0)


def test_a_held_out_error_is_missed_only_where_luck_does_not_explain_it(tmp_path: Path) -> None:
    report = replicate(scenario(tmp_path), "cloud", 1).finished[0].report

    def missed(held: bool, *seconds: tuple[float, float]) -> bool:
        each = [[replace(report, ttft_s=0.0, e2e_s=one) for one in (a, b, b)] for a, b in seconds]
        return Checked("sync", "lte", held, (tuple(Compared(*one) for one in each),)).missed

    assert missed(False, (10.0, 11.5), (10.0, 9.5))
    assert not missed(True, (10.0, 11.5), (10.0, 9.5))
    assert missed(True, (10.0, 11.0), (10.0, 11.001))


# The command line


def test_fit_pair_measures_both_errors_and_says_where_nothing_could_be_held_out(
    records: list[Record], tmp_path: Path
) -> None:
    def said(*arguments: str | Path) -> tuple[list[bool], str | None]:
        asked = ["--policy", "sync", "--tokens", "100", "--json", "--out", str(tmp_path / "p.toml")]
        done = CliRunner().invoke(app, ["fit-pair", *map(str, arguments), *asked])
        found = json.loads(done.stdout)
        return [one["held_out"] for one in found["checked"]], found["not_held_out"]

    both = [record.path for record in records]
    assert said(*both) == ([False, True], None)
    assert "sync over the recorded link, held out: " in (tmp_path / "p.toml").read_text()
    assert said(*both, "--no-held-out") == ([False], None)
    one = record_of(tmp_path / "one", RUNS, 3)
    checked, why = said(one.path)
    assert checked == [False]
    assert why is not None
    assert "too few to fit a pair to" in why


def test_a_single_text_cannot_be_held_out(records: list[Record]) -> None:
    with pytest.raises(RecordError, match=r"r\.rec: a single text"):
        held_out([replace(records[0], sessions=records[0].sessions[:1])])
