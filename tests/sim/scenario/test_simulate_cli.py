"""``foredraft simulate`` as a user runs it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from foredraft.cli.main import app
from observe.record.trace_checks import checked, names
from sim.scenario.scenario_files import workload, write


def simulate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


def test_a_table_for_people_names_policies_and_what_is_assumed(tmp_path: Path) -> None:
    done = simulate(write(tmp_path))
    assert done.exit_code == 0, done.output
    for word in ("a test", "cloud", "sync:gamma=4", "TPOT", "ASSUMED: draft_step.flat_tokens", "nothing measured"):
        assert word in done.stdout


def test_json_is_one_object_with_policies_and_inputs(tmp_path: Path) -> None:
    done = simulate(write(tmp_path), "--policy", "cloud", "--policy", "sync:gamma=2", "--seed", "9", "--json")
    said = json.loads(done.stdout)
    assert [policy["policy"] for policy in said["policies"]] == ["cloud", "sync:gamma=2"]
    assert said["seeds"] == [9]
    assert said["policies"][0]["tpot_s"] == pytest.approx(0.62)
    assert said["inputs"]["pair"]["ranks"][0] == 0.58


def test_events_are_lines_of_json_in_order_of_time_within_a_replication(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    assert simulate(write(tmp_path), "--events", file).exit_code == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    kinds = {(line["where"], line["kind"]) for line in lines}
    assert {("edge", "draft"), ("cloud", "verdict"), ("uplink", "Grow"), ("downlink", "Hint")} <= kinds
    one = [line["t_s"] for line in lines if (line["policy"], line["seed"]) == ("seed:gamma=4", 2)]
    assert one == sorted(one)
    assert simulate(write(tmp_path), "--events", tmp_path / "again.jsonl").exit_code == 0
    assert (tmp_path / "again.jsonl").read_bytes() == file.read_bytes()


def test_a_trace_has_tracks_slices_that_do_not_overlap_and_arrows(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    fleet = workload(prompt_tokens=8, new_tokens=16, devices=3, requests=3)
    assert simulate(write(tmp_path, fleet), "--policy", "seed", "--trace", file).exit_code == 0
    events = checked(file.read_bytes())
    tracks = {"seed: device 0", "seed: server 0", "drafting", "uplink", "downlink"}
    assert tracks | {f"{what} of request 2" for what in ("passes", "layers", "exits")} <= names(events, "M")
    assert {"draft", "draft (wasted)", "pass", "pass (wasted)", "Grow", "Hint", "layers 1-8"} <= names(events, "X")
    assert sum(event["ph"] == "f" for event in events) > 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "sinc"], "did you mean 'sync'?"),
        (["--policy", "sync", "--policy", "sync"], "'sync' is there twice"),
        (["--events", "none/events.jsonl"], "cannot write"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = simulate(write(tmp_path), *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_nothing_is_written_when_something_fails(tmp_path: Path) -> None:
    gone = ("[pair]", "[link.override]\noutages = [{ start_s = 3.0, duration_s = 1e6, cuts = true }]\n[pair]")
    file = tmp_path / "events.jsonl"
    done = simulate(write(tmp_path, gone), "--events", file, "--trace", tmp_path / "trace.json")
    assert done.exit_code == 2
    assert "request 0 of seed 1 failed" in done.stderr
    there = simulate(write(tmp_path), "--events", file, "--trace", tmp_path / "no" / "trace.json")
    assert there.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["scenario.toml"]
