"""Replaying records: simulated ones happen again as they did, live ones nearly, and both under other set-ups."""

import asyncio
import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from api import clouds
from foredraft import Cloud, RecordError, connect, read_record
from foredraft.cli.main import app
from foredraft.edge.estimates import Estimates
from foredraft.edge.saved_estimates import estimates_as_plain
from foredraft.engines.device import Work
from foredraft.engines.pace import Pace, Residual
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.observe.record.event_lines import event_lines
from foredraft.observe.record.frames import HEADER, Began, Frame, encode_frame
from foredraft.observe.record.reading import Record, frames_in
from foredraft.profiles import load_profile, seconds
from foredraft.profiles.compute import share_after
from foredraft.protocol.ports import Link
from foredraft_sim.errors import ScenarioError
from foredraft_sim.loop.event_loop import SimLoop
from foredraft_sim.network.network import SimNetwork
from foredraft_sim.replay.recorded_profiles import measured_draft, measured_link, measured_target
from foredraft_sim.replay.replay import Changes, ReplaySource, replay
from foredraft_sim.scenario.replications import replicate
from foredraft_sim.scenario.scenario import Scenario
from foredraft_sim.scenario.simulated_record import complete
from foredraft_sim.streams import Streams
from foredraft_sim.tokens.recorded_times import Calls, RecordedPace, target_calls
from observe.record.recorded_sessions import PROMPT, recorded
from observe.record.trace_checks import checked, names
from sim.scenario.scenario_files import PAIR, scenario, workload, write

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


def live(file: Path, policy: str, *, cut_s: float = 0.0, residual: Residual | None = None) -> Record:
    """A live session between paced engines, over a link of 24 ms; its wall clock is a simulated one, to be exact."""

    async def session() -> None:
        target = PacedTarget(clouds.target(), load_profile("robot-5-target", "target"), residual=residual)
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


def test_what_a_live_edge_knew_beforehand_its_replay_knows_as_well(tmp_path: Path) -> None:
    """The second text of an edge begins with what the first has taught, and so does its replay, each time."""
    first, second = tmp_path / "1.rec", tmp_path / "2.rec"

    async def session() -> None:
        async with clouds.cloud() as cloud, connect(cloud, draft=clouds.drafter()) as edge:
            for file in (first, second):
                await edge.generate(PROMPT, policy="auto", max_new_tokens=40, seed=3, record=file).finish()

    asyncio.run(session())
    began = [read_record(file).sessions[0].began for file in (first, second)]
    assert began[0].estimates == estimates_as_plain(Estimates())
    known = began[1].estimates
    assert known is not None
    assert known["tokens"]["samples"] > 0
    source = ReplaySource(read_record(second))
    for _ in range(2):
        asked = source.request(1, 0)
        assert asked.estimates is not None
        assert estimates_as_plain(asked.estimates) == known
        asked.estimates.saw_pass(0, 9.0, 9.0, 1)  # what a session learns stays its own
    assert replay(read_record(second)).same_tokens


def test_a_record_from_before_estimates_were_recorded_is_replayed_without(tmp_path: Path) -> None:
    recorded(tmp_path / "r.rec", policy="auto")
    frames = frames_in((tmp_path / "r.rec").read_bytes())
    old = [without_estimates(frame) for frame in frames]
    (tmp_path / "old.rec").write_bytes(HEADER + b"".join(old))
    record = read_record(tmp_path / "old.rec")
    assert (record.cut, record.sessions[0].began.estimates) == (None, None)
    assert replay(record).same_tokens


def without_estimates(frame: Frame) -> bytes:
    """A frame as a Foredraft wrote it that did not know of them."""
    whole = encode_frame(frame)
    if not isinstance(frame, Began):
        return whole
    payload = msgspec.msgpack.encode(msgspec.msgpack.decode(whole[8:])[:-1])
    return struct.pack(">II", len(payload), zlib.crc32(payload)) + payload


def test_the_kth_call_of_so_many_tokens_takes_what_the_kth_recorded_one_took() -> None:
    profile = load_profile("robot-5-target", "target")
    pace = RecordedPace(profile, "pass", Calls({1: [0.01, 0.03], 4: [0.05]}, (), {3: 0.6}))

    def took_s(new_tokens: int, kind: str = "pass") -> float:
        return pace.batch_s([Work(kind, new_tokens, 50, 0, pace)])

    assert [took_s(1) for _ in range(4)] == [0.01, 0.03, 0.01, 0.03]
    assert [took_s(4), took_s(4)] == [0.05, 0.05]
    usual_s = Pace(profile, None, "warn").batch_s([Work("pass", 2, 50, 0, pace)])
    assert [took_s(2), took_s(2)] == pytest.approx([usual_s * 0.5, usual_s * 1.5])  # as the one-token passes varied
    assert took_s(1) == 0.01
    prefill_s = Pace(profile, None, "warn").batch_s([Work("prefill", 8, 0, 0, pace)])
    assert took_s(8, "prefill") == prefill_s
    assert pace.share_after(3, 12) == 0.6
    assert pace.share_after(6, 12) == Pace(profile, None, "warn").share_after(6, 12)


def test_a_live_session_is_replayed_the_same_way_each_time(tmp_path: Path) -> None:
    record = live(tmp_path / "r.rec", "auto")
    assert replay(record).replication == replay(record).replication


def test_a_live_sessions_uneven_passes_are_replayed_one_by_one(tmp_path: Path) -> None:
    """Every third pass takes three times as long: the replay's passes do so, too."""
    record = live(tmp_path / "r.rec", "cloud", residual=Uneven())
    again = replay(record).replication.record
    took_s, taken_s = (
        [one.data["pass_s"] for one in each.noted if (one.where, one.kind) == ("edge", "commit")]
        for each in (record, again)
    )
    assert max(took_s) > 2.5 * min(took_s)
    assert taken_s == pytest.approx(took_s, rel=0.01)


class Uneven:
    """A residual: every third call takes three times as long."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, kind: str) -> float:
        self._calls += 1
        return 3.0 if self._calls % 3 == 0 else 1.0


def test_exits_of_a_live_session_speak_at_their_recorded_share_of_a_pass(tmp_path: Path) -> None:
    record = live(tmp_path / "r.rec", "seed:gamma=3")
    shares = target_calls(record).shares
    model, layers = load_profile("robot-5-target", "target").model, record.setup.models.layers
    assert shares == {layer: pytest.approx(share_after(model, layer, layers), abs=0.02) for layer in shares}
    assert shares


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
    with pytest.raises(RecordError, match=r"the edge drafted nothing in it .* name a profile with --edge"):
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
