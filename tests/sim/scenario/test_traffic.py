"""Traffic from a file: lengths row by row, times as they were or as a fleet asks, and files that cannot be read."""

import math
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from foredraft.cli.main import app
from foredraft_sim.errors import ScenarioError
from foredraft_sim.plan.capacity import sized
from foredraft_sim.scenario.emulation import arrivals
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import with_traffic
from foredraft_sim.scenario.scenario_file import Spread
from foredraft_sim.scenario.traffic import read_traffic
from sim.scenario.scenario_files import scenario, workload, write

AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.5000000,37,4
2023-11-16 18:15:47.0000000,9,12
2023-11-16 18:15:49.5000000,110,7
"""
LENGTHS = '{"prompt_tokens": 12, "output_tokens": 5}\n\n{"prompt_tokens": 7, "output_tokens": 9}\n'
ASKED = {"requests": 4, "devices": 2, "traffic": '"t.csv"', "arrivals": '{ kind = "traffic" }'}


def file(folder: Path, text: str, name: str = "t.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_rows_of_azures_trace_are_lengths_and_times_since_the_first(tmp_path: Path) -> None:
    read = read_traffic(file(tmp_path, "\ufeff" + AZURE))
    assert list(read.lengths) == [(37, 4), (9, 12), (110, 7)]
    assert read.arrived_s == pytest.approx([0.0, 0.5, 3.0])
    assert read.longest == (110, 12)
    assert read.lengths_of(4) == (9, 12)
    assert [read.arrives_s(request) for request in (3, 4)] == pytest.approx([4.5, 5.0])


@pytest.mark.parametrize(
    "header",
    ["Timestamp,Request tokens,Response tokens", "time,input_tokens,output_tokens", "ARRIVED_S,prompt_len,new_tokens"],
)
def test_columns_are_found_by_their_names(tmp_path: Path, header: str) -> None:
    read = read_traffic(file(tmp_path, f"Model,{header}\nx,5,10,20\nx,5.25,30,40\n"))
    assert (list(read.lengths), list(read.arrived_s)) == ([(10, 20), (30, 40)], [0.0, 0.25])


def test_a_file_of_lengths_alone_has_no_times(tmp_path: Path) -> None:
    read = read_traffic(file(tmp_path, LENGTHS, "lengths.jsonl"))
    assert (list(read.lengths), list(read.arrived_s)) == ([(12, 5), (7, 9)], [])


def test_requests_have_the_lengths_of_the_rows_and_come_when_they_came(tmp_path: Path) -> None:
    file(tmp_path, AZURE)
    read = scenario(tmp_path, workload(**ASKED))
    done = replicate(read, "cloud", 1, log=True)
    assert [one.report.new_tokens for one in done.finished] == [4, 12, 7, 4]
    assert [one.arrived_s for one in done.finished] == pytest.approx([0.0, 0.5, 3.0, 4.5])
    assert [session.began.prompt_tokens for session in done.record.sessions] == [37, 9, 110, 37]
    assert read.longest == (110, 12)


@pytest.mark.parametrize("devices", [1, 2, 6])
def test_a_larger_fleet_asks_as_much_per_device(tmp_path: Path, devices: int) -> None:
    file(tmp_path, AZURE)
    fleet = sized(scenario(tmp_path, workload(**ASKED)), devices)
    per_device_s = arrivals(fleet, 1)[-1] / (fleet.workload.requests - 1) * devices
    assert fleet.workload.requests == 3 * devices
    assert per_device_s == pytest.approx(2 * 1.5, rel=0.35)  # two devices had a request every 1.5 s
    assert arrivals(fleet, 1) == sorted(arrivals(fleet, 1))


def test_the_traffic_of_a_plan_is_that_of_a_file(tmp_path: Path) -> None:
    read = with_traffic(scenario(tmp_path), file(tmp_path, AZURE))
    assert read.traffic == read_traffic(tmp_path / "t.csv")
    assert arrivals(sized(read, 1), 1) == pytest.approx([0.0, 0.5, 3.0])
    lengths = with_traffic(scenario(tmp_path), file(tmp_path, LENGTHS, "lengths.jsonl"))
    assert lengths.workload.arrivals == scenario(tmp_path).workload.arrivals


def test_plan_takes_traffic(tmp_path: Path) -> None:
    asked = ["plan", write(tmp_path), "--slo", "p95-tpot=5", "--policy", "sync", "--most", "2"]
    done = CliRunner().invoke(app, [str(word) for word in (*asked, "--traffic", file(tmp_path, AZURE))])
    assert done.exit_code == 0, done.output
    assert "\N{HORIZONTAL ELLIPSIS}" not in done.stdout  # the table is whole where nobody says how wide a line is
    refused = CliRunner().invoke(app, [str(word) for word in (*asked, "--traffic", tmp_path / "none.csv")])
    assert refused.exit_code == 2
    assert "none.csv: cannot be read" in refused.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no request in it"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no request in it"),
        ("TIMESTAMP,ContextTokens\n1,2\n", "line 1: no column GeneratedTokens or new_tokens"),
        ("a,b\n1,2\n", "no column ContextTokens or prompt_tokens"),
        (AZURE + "2023-11-16 18:15:50,x,4\n", "line 5: ContextTokens = 'x': a whole number of tokens from 1"),
        (AZURE + "2023-11-16 18:15:50,4,0\n", "line 5: GeneratedTokens = '0': a whole number"),
        (AZURE + "2023-11-16 18:15:50,4,1.5\n", "line 5: GeneratedTokens = '1.5': a whole number"),
        (AZURE + "2023-11-16 18:15:50,4\n", "line 5: GeneratedTokens = None: a whole number"),
        (AZURE + "soon,4,5\n", "line 5: TIMESTAMP = 'soon': seconds or a date"),
        (AZURE + "nan,4,5\n", "line 5: TIMESTAMP = 'nan': seconds or a date"),
        (
            AZURE + "2023-11-16 18:15:46,4,5\n",
            "line 5: TIMESTAMP = '2023-11-16 18:15:46' is before the line above: sort",
        ),
    ],
)
def test_a_file_that_is_no_traffic_is_refused_by_line_and_column(tmp_path: Path, text: str, said: str) -> None:
    path = file(tmp_path, text)
    with pytest.raises(ScenarioError) as refused:
        read_traffic(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("line", "said"), [("{", "line 1: not JSON"), ("[1]", "line 1: an object is needed")])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        read_traffic(file(tmp_path, line + "\n", "t.jsonl"))


def test_times_that_a_file_does_not_tell_cannot_be_kept(tmp_path: Path) -> None:
    file(tmp_path, LENGTHS, "lengths.jsonl")
    with pytest.raises(ScenarioError, match=r"lengths\.jsonl tells no times"):
        scenario(tmp_path, workload(**{**ASKED, "traffic": '"lengths.jsonl"'}))
    with pytest.raises(ScenarioError, match=r"workload\.traffic is missing"):
        scenario(tmp_path, workload(arrivals='{ kind = "traffic" }'))


@given(luck=st.floats(0.0, 1.0, exclude_max=True))
def test_a_spread_never_leaves_its_bounds(luck: float) -> None:
    for spread in (Spread(least=3, most=9), Spread(least=3, most=900, median=40, sigma=1.2)):
        assert spread.least <= spread.of(luck) <= spread.most


def test_a_spread_with_a_median_is_log_normal() -> None:
    spread = Spread(least=1, most=100_000, median=200, sigma=0.8)
    drawn = [spread.of((place + 0.5) / 4000) for place in range(4000)]
    assert median(drawn) == pytest.approx(200, rel=0.01)
    logs = sorted(math.log(one) for one in drawn)
    assert logs[3365] - logs[2000] == pytest.approx(0.8, abs=0.03)  # one standard deviation up
