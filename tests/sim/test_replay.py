"""Replaying records: simulated ones happen again as they did, live ones nearly, and both under other set-ups."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from api import clouds
from foredraft import Cloud, RecordError, connect, read_record
from foredraft.cli.main import app
from foredraft.core.ports import Link
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.profiles import load_profile, seconds
from foredraft.record.event_lines import event_lines
from foredraft.record.reading import Record
from foredraft_sim.emulation import replicate
from foredraft_sim.errors import ScenarioError
from foredraft_sim.loop import SimLoop
from foredraft_sim.measured import measured_draft, measured_link, measured_target
from foredraft_sim.network import SimNetwork
from foredraft_sim.replay import Changes, replay
from foredraft_sim.scenario import Scenario
from foredraft_sim.simulated_record import complete
from foredraft_sim.streams import Streams
from record.recorded_sessions import PROMPT, recorded
from record.trace_checks import checked, names
from sim.scenario_files import PAIR, scenario, workload, write

POLICIES = ("cloud", "sync:gamma=4", "seed:gamma=4", "ahead", "auto")
FLEET = workload(
    prompt_tokens=8, new_tokens=16, devices=3, requests=5, arrivals='{ kind = "poisson", rate_per_s = 1.0 }'
)
NOISY = (
    "[pair]",
    """[link.override]
up = { jitter_s = 0.05 }
loss = { good_s = 2.0, bad_s = 0.4, bad_loss = 0.5, rto_s = 0.2, rto_max_s = 1.0 }
outages = [{ start_s = 3.0, duration_s = 1.0, cuts = true }]

[pair]""",
)


def record_of(read: Scenario, policy: str, file: Path, *, seed: int = 1, private: bool = False) -> Record:
    done = replicate(read, policy, seed, log=True)
    file.write_bytes(complete(read, done.record, done.recorded, private=private))
    return read_record(file)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_simulated_record_replays_to_the_same_event_log(tmp_path: Path, policy: str) -> None:
    record = record_of(scenario(tmp_path, NOISY, FLEET), policy, tmp_path / "r.rec")
    done = replay(record)
    assert done.replication.log == event_lines(record)
    assert (done.same_tokens, done.same_events) == (True, True)
    assert done.replayed == done.recorded
    assert sum(one.kind == "retry" for one in record.noted) >= 1  # the outage is in it


@pytest.mark.parametrize("policy", ["colocated", "both"])
def test_a_draft_model_in_the_cloud_is_in_the_record(tmp_path: Path, policy: str) -> None:
    cloud = ('profile = "a100-qwen2-vl-7b"', 'profile = "a100-qwen2-vl-7b"\ndraft = "robot-5-draft"')
    record = record_of(scenario(tmp_path, cloud), policy, tmp_path / "r.rec")
    assert {one.where for one in record.sessions[0].asked} == (
        {"cloud"} if policy == "colocated" else {"cloud", "edge"}
    )
    assert replay(record).same_events


def test_a_record_of_models_replays_to_the_same_event_log_off_the_text_as_well(tmp_path: Path) -> None:
    """A tree of the bundled draft's guesses: most of them are beside the text."""
    pytest.importorskip("torch")
    models = (PAIR, 'kind = "models"')
    work = workload(prompts='["def main():"]', new_tokens=16)
    read = scenario(tmp_path, models, work, more="[sampling]\ntemperature = 0.8\n")
    for policy in ("seed:gamma=4", "ahead"):
        record = record_of(read, policy, tmp_path / "r.rec")
        done = replay(record)
        assert done.replication.log == event_lines(record)
        assert (done.same_tokens, done.same_events) == (True, True)
        assert all(one.rank >= -1 for one in record.sessions[0].positions)


@pytest.mark.parametrize("policy", POLICIES)
def test_another_policy_writes_the_same_text_and_takes_what_it_takes_with_the_pair_itself(
    tmp_path: Path, policy: str
) -> None:
    """A synthetic pair says the same at a position whatever was asked there: the record knows all of it."""
    read = scenario(tmp_path)
    record = record_of(read, "cloud", tmp_path / "r.rec")
    done = replay(record, Changes(policy=policy))
    themselves = replicate(read, policy, 1, log=True)
    assert done.same_tokens
    assert done.same_events is None
    assert done.replication.log == themselves.log


def test_another_link_device_or_server_changes_the_time_and_not_the_text(tmp_path: Path) -> None:
    record = record_of(scenario(tmp_path), "sync:gamma=4", tmp_path / "r.rec")
    far = replay(record, Changes(link=load_profile("wan", "link")))
    slow = replay(record, Changes(edge=load_profile("raspberry-pi-5-vicuna-68m", "draft")))
    other = replay(record, Changes(cloud=load_profile("a100-llama2-7b", "target")))
    times = {round(one.replayed["e2e_s"], 6) for one in (far, slow, other)} | {round(far.recorded["e2e_s"], 6)}
    assert len(times) == 4
    for one in (far, slow, other):
        assert one.same_tokens
        assert one.same_events is None
        assert one.replayed["passes"] == one.recorded["passes"]


def test_replaying_twice_is_replaying_once(tmp_path: Path) -> None:
    record = record_of(scenario(tmp_path, NOISY, FLEET), "auto", tmp_path / "r.rec")
    changes = Changes(policy="seed", link=load_profile("lte", "link"))
    assert replay(record, changes).replication == replay(record, changes).replication


@pytest.mark.parametrize("policy", ["sync:gamma=4", "seed:gamma=4", "ahead"])
def test_a_private_record_replays_in_the_same_time(tmp_path: Path, policy: str) -> None:
    """With stand-ins for its tokens, so only messages' sizes may differ, and on this link they take no time."""
    record = record_of(scenario(tmp_path), policy, tmp_path / "r.rec", private=True)
    assert record.sessions[0].tokens == [-1] * 24
    done = replay(record)
    assert done.same_events is None
    for name in ("ttft_s", "tpot_s", "e2e_s", "passes", "accepted", "hints", "hints_right"):
        assert done.replayed[name] == pytest.approx(done.recorded[name]), name


def test_a_record_that_was_cut_off_is_replayed_up_to_the_cut(tmp_path: Path) -> None:
    file = tmp_path / "r.rec"
    done = replicate(scenario(tmp_path), "sync:gamma=4", 1, log=True)
    file.write_bytes(done.recorded[: len(done.recorded) * 3 // 4])
    record = read_record(file)
    tokens = record.sessions[0].tokens
    assert record.cut is not None
    assert 4 < len(tokens) < 24
    again = replay(record)
    assert again.replication.finished[0].report.tokens == tokens
    assert (again.recorded, again.same_events, again.same_tokens) == ({}, None, True)


# Live sessions


def live(file: Path, policy: str, *, cut_s: float = 0.0) -> Record:
    """A live session between paced engines, over a link of 24 ms; its wall clock is a simulated one, to be exact."""

    async def session() -> None:
        target = PacedTarget(clouds.target(), load_profile("robot-5-target", "target"))
        drafter = PacedDrafter(clouds.drafter(), load_profile("robot-5-draft", "draft"))
        async with Cloud(target, clouds.TOKENIZER) as cloud:
            tasks: list[asyncio.Task[None]] = []
            network = SimNetwork(
                load_profile("robot-5", "link"),
                Streams(1),
                lambda link: tasks.append(asyncio.ensure_future(cloud.service.handle(link))),
            )

            class Far(Cloud):
                async def connect(self) -> Link:
                    link = await network.connect()
                    if cut_s and len(tasks) == 2:
                        asyncio.get_running_loop().call_later(cut_s, link.cut)
                    return link

            far = Far(target, clouds.TOKENIZER)
            async with connect(far, draft=drafter) as edge:
                await edge.generate(PROMPT, policy=policy, max_new_tokens=40, seed=3, record=file).finish()
            await asyncio.gather(*tasks)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(session())
    return read_record(file)


@pytest.mark.parametrize("policy", ["cloud", "sync:gamma=4", "seed:gamma=3", "ahead"])
def test_a_live_session_is_replayed_with_its_own_durations_in_nearly_its_own_time(tmp_path: Path, policy: str) -> None:
    record = live(tmp_path / "r.rec", policy)
    done = replay(record)
    assert not record.setup.simulated
    assert (done.same_tokens, done.same_events) == (True, None)
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        assert done.replayed[name] == pytest.approx(done.recorded[name], rel=0.05), name
    for name in ("passes", "drafted", "accepted", "hints"):
        assert done.replayed[name] == done.recorded[name], name


def test_what_a_live_session_tells_of_its_devices_and_link_is_what_they_were(tmp_path: Path) -> None:
    record = live(tmp_path / "r.rec", "seed:gamma=3")
    target, draft, link = measured_target(record), measured_draft(record, needed=True), measured_link(record)
    assert link.round_trip_s == pytest.approx(load_profile("robot-5", "link").round_trip_s, rel=0.02)
    real_target, real_draft = load_profile("robot-5-target", "target"), load_profile("robot-5-draft", "draft")
    assert seconds(target.target_pass, 4, 50) == pytest.approx(seconds(real_target.target_pass, 4, 50), rel=0.02)
    assert seconds(draft.draft_step, 1, 50) == pytest.approx(seconds(real_draft.draft_step, 1, 50), rel=0.02)
    assert target.model.head_share == pytest.approx(real_target.model.head_share, abs=0.02)


def test_a_live_session_that_lost_its_link_loses_it_again(tmp_path: Path) -> None:
    record = live(tmp_path / "r.rec", "sync:gamma=4", cut_s=0.8)
    done = replay(record)
    assert done.recorded["reconnects"] == done.replayed["reconnects"] == 1
    assert done.same_tokens
    assert done.replayed["e2e_s"] == pytest.approx(done.recorded["e2e_s"], rel=0.15)


def test_a_text_that_a_stop_string_ended_ends_there_again(tmp_path: Path) -> None:
    for private in (False, True):
        report = recorded(tmp_path / "r.rec", policy="sync", stop=["Viktor"], max_new_tokens=60, private=private)
        assert report.finish_reason == "stop"
        again = replay(read_record(tmp_path / "r.rec")).replication.finished[0].report
        assert (again.finish_reason, again.new_tokens) == ("stop", report.new_tokens)
        if not private:
            assert again.tokens == report.tokens


def test_a_streamed_session_does_not_tell_how_long_drafting_takes(tmp_path: Path) -> None:
    recorded(tmp_path / "r.rec", policy="cloud")
    record = read_record(tmp_path / "r.rec")
    assert replay(record).same_tokens
    with pytest.raises(RecordError, match=r"nothing was drafted in it .* name a profile with --edge"):
        replay(record, Changes(policy="sync"))
    assert replay(record, Changes(policy="sync", edge=load_profile("robot-5-draft", "draft"))).same_tokens


# The command line


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_simulate_records_and_replay_replays(tmp_path: Path) -> None:
    file, events = tmp_path / "r.rec", tmp_path / "e.jsonl"
    done = run("simulate", write(tmp_path), "--policy", "seed", "--seed", "2", "--record", file, "--events", events)
    assert done.exit_code == 0, done.output
    again = run("replay", file, "--events", tmp_path / "again.jsonl", "--trace", tmp_path / "t.json")
    assert again.exit_code == 0, again.output
    assert "everything happened as recorded" in again.stdout
    assert (tmp_path / "again.jsonl").read_bytes() == events.read_bytes()
    drawn = checked((tmp_path / "t.json").read_bytes())
    assert {"draft", "draft (wasted)", "pass", "Commit", "Hint"} <= names(drawn, "X")


def test_replay_tells_both_times_and_their_ratio_as_json(tmp_path: Path) -> None:
    run("simulate", write(tmp_path), "--policy", "sync", "--seed", "1", "--record", tmp_path / "r.rec")
    done = run("replay", tmp_path / "r.rec", "--link", "wan", "--policy", "seed:gamma=3", "--json")
    said = json.loads(done.stdout)
    assert said["policy"] == {"recorded": "sync", "replayed": "seed:gamma=3"}
    assert said["profiles"]["link"] == "wan"
    assert said["ratio"]["e2e_s"] == pytest.approx(said["replayed"]["e2e_s"] / said["recorded"]["e2e_s"])
    assert (said["same_tokens"], said["same_events"], said["sessions"]) == (True, None, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.rec"], "none.rec: cannot be read"),
        (["scenario.toml"], "scenario.toml: not a record"),
        (["r.rec", "--policy", "sinc"], "did you mean 'sync'?"),
        (["r.rec", "--link", "wam"], "did you mean 'wan'?"),
        (["r.rec", "--edge", "wan"], "draft"),
        (["r.rec", "--trace", "none/t.json"], "there is no folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("simulate", write(tmp_path), "--policy", "sync", "--seed", "1", "--record", "r.rec").exit_code == 0
    before = sorted(tmp_path.iterdir())
    done = run("replay", *arguments)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert done.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


def test_a_record_of_another_scenario_format_says_so(tmp_path: Path) -> None:
    record = record_of(scenario(tmp_path), "sync", tmp_path / "r.rec")
    strange = msgspec.structs.replace(record.setup, scenario={"policies": 3})
    with pytest.raises(RecordError, match="its scenario does not fit this Foredraft"):
        replay(replace(record, setup=strange))


def test_a_policy_that_cannot_be_made_again_says_so(tmp_path: Path) -> None:
    record = record_of(scenario(tmp_path), "sync", tmp_path / "r.rec")
    with pytest.raises(ScenarioError, match="policies: 'nowhere:Nothing'"):
        replay(record, Changes(policy="nowhere:Nothing"))
