"""Replaying records of sessions in which a draft model in the cloud took part, or might have."""

import asyncio
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import msgspec
import pytest
from typer.testing import CliRunner

from api import clouds
from foredraft import Cloud, RecordError, connect, read_record
from foredraft.cli.main import app
from foredraft.engines.paced import PacedDrafter, PacedTarget
from foredraft.engines.scripted import ScriptedDrafter
from foredraft.observe.record import BEYOND, UNASKED
from foredraft.observe.record.frames import HEADER, Frame, Noted, TokenPredictions, encode_frame
from foredraft.observe.record.reading import Record, frames_in
from foredraft.observe.record.recorder import Recorder
from foredraft.profiles import load_profile, seconds
from foredraft.protocol.ports import Drafter, Guess, Link, NewDrafter
from foredraft_sim.loop.event_loop import SimLoop
from foredraft_sim.network.network import SimNetwork
from foredraft_sim.replay.recorded_profiles import measured_cloud_draft, measured_target
from foredraft_sim.replay.replay import Changes, Replayed, replay
from foredraft_sim.streams import Streams
from foredraft_sim.tokens.recorded_times import cloud_draft_calls
from observe.record.recorded_sessions import PROMPT, START
from sim.replay.test_replay import record_of
from sim.scenario.scenario_files import scenario

TIMES = ("ttft_s", "tpot_s", "e2e_s")
COUNTS = ("passes", "drafted", "accepted")
STEP = load_profile("robot-5-draft", "draft")
TARGET = load_profile("robot-5-target", "target")


def third_wrong() -> Drafter:
    """The cloud's draft is wrong at every third position; the edge's at every fifth."""

    def guess(position: int, _: int) -> Sequence[Guess]:
        return [Guess(clouds.truth(position) if position % 3 else 0, 0.7)]

    return PacedDrafter(ScriptedDrafter(guess), STEP)


def live(
    file: Path, policy: str, *, new_drafter: NewDrafter | None = third_wrong, private: bool = False, ask: bool = True
) -> Record:
    """A live session between paced engines, over a link of 24 ms; its wall clock is a simulated one, to be exact."""

    async def session() -> None:
        target = PacedTarget(clouds.target(), TARGET)
        async with Cloud(target, clouds.TOKENIZER, new_drafter=new_drafter) as cloud:
            tasks: list[asyncio.Task[None]] = []

            def accept(link: Link) -> None:
                tasks.append(asyncio.ensure_future(cloud.service.handle(link)))

            network = SimNetwork(load_profile("robot-5", "link"), Streams(1), accept)

            class Far(Cloud):
                async def connect(self) -> Link:
                    return await network.connect()

            edge_draft = PacedDrafter(clouds.drafter(), STEP)
            recorder = Recorder(file, private=private, ask=ask)
            async with connect(Far(target, clouds.TOKENIZER), draft=edge_draft) as edge:
                await edge.generate(PROMPT, policy=policy, max_new_tokens=40, seed=3, record=recorder).finish()
            await asyncio.gather(*tasks)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        runner.run(session())
    return read_record(file)


def assert_near(done: Replayed, *, times: float = 0.05) -> None:
    assert done.same_tokens
    for name in TIMES:
        assert done.replayed[name] == pytest.approx(done.recorded[name], rel=times), name
    for name in COUNTS:
        assert done.replayed[name] == done.recorded[name], name


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("policy", ["colocated", "colocated:cloud_gamma=2"])
def test_a_live_session_with_a_draft_in_the_cloud_is_replayed_in_nearly_its_own_time(
    tmp_path: Path, policy: str, private: bool
) -> None:
    record = live(tmp_path / "r.rec", policy, private=private)
    done = replay(record)
    assert_near(done)
    assert replay(record).replication == done.replication


@pytest.mark.parametrize("private", [False, True])
def test_so_is_one_in_which_both_draft(tmp_path: Path, private: bool) -> None:
    """What is in a pass is attached on which came first, the edge's chain or the pass."""
    record = live(tmp_path / "r.rec", "both", private=private)
    done = replay(record)
    assert done.same_tokens
    assert replay(record).replication == done.replication
    for name in (*TIMES, *COUNTS):
        assert done.replayed[name] == pytest.approx(done.recorded[name], rel=0.05), name


def test_what_a_record_tells_of_the_draft_in_the_cloud_is_what_it_says_and_takes(tmp_path: Path) -> None:
    record = live(tmp_path / "r.rec", "colocated")
    for one in record.sessions[0].positions:
        assert one.cloud_rank == (0 if one.position % 3 else BEYOND)
        assert one.cloud_guesses == ((one.token if one.position % 3 else 0, 0.7),)
        assert one.rank == (0 if one.position % 5 else BEYOND)  # the edge's is another
    draft = measured_cloud_draft(record, cloud_draft_calls(record))
    assert seconds(draft.draft_step, 1, 50) == pytest.approx(seconds(STEP.draft_step, 1, 50), rel=0.02)
    target, real = measured_target(record), TARGET
    assert seconds(target.target_pass, 5, 50) == pytest.approx(seconds(real.target_pass, 5, 50), rel=0.02)


def test_draft_steps_in_the_cloud_are_replayed_one_by_one(tmp_path: Path) -> None:
    """Those before the third commit take half a second each: so do the replay's."""
    live(tmp_path / "slow.rec", "colocated")
    commits = 0

    def slower(frame: Frame) -> Frame:
        nonlocal commits
        if not (isinstance(frame, Noted) and "draft_us" in frame.data):
            return frame
        commits += 1
        steps_us = [500_000] * len(frame.data["draft_us"]) if commits == 3 else frame.data["draft_us"]
        later_s = sum(steps_us) / 1e6 if commits == 3 else 0.0
        data = frame.data | {"draft_us": steps_us, "heard_s": frame.data["heard_s"] + later_s}
        return msgspec.structs.replace(frame, data=data)

    record = rewritten(tmp_path / "slow.rec", slower)
    commits_s = [one.t_s for one in replay(record).replication.record.noted if one.kind == "commit"]
    gaps_s = [after - before for before, after in pairwise(commits_s)]
    assert gaps_s[1] > 1.9
    assert max(gaps_s[:1] + gaps_s[2:]) < 0.5


def rewritten(file: Path, change: Callable[[Frame], Frame]) -> Record:
    frames = [change(frame) for frame in frames_in(file.read_bytes())]
    file.write_bytes(HEADER + b"".join(map(encode_frame, frames)))
    return read_record(file)


def test_without_having_asked_the_cloud_commits_tell_what_its_draft_guessed_right(tmp_path: Path) -> None:
    record = live(tmp_path / "r.rec", "colocated", ask=False)
    assert {one.cloud_rank for one in record.sessions[0].positions} == {UNASKED}
    assert_near(replay(record))


def test_a_commit_is_believed_where_the_cloud_says_otherwise_afterwards(tmp_path: Path) -> None:
    """Two scores that are nearly equal may come out in another order when many tokens are run at once."""
    live(tmp_path / "r.rec", "colocated")

    def opposite(frame: Frame) -> Frame:
        if not isinstance(frame, TokenPredictions):
            return frame
        right = frame.cloud_rank == BEYOND
        token = clouds.truth(frame.position) if right else 0
        return msgspec.structs.replace(frame, cloud_rank=0 if right else BEYOND, cloud_guesses=((token, 0.5),))

    assert_near(replay(rewritten(tmp_path / "r.rec", opposite)))


def test_another_depth_of_drafts_in_the_cloud_guesses_what_was_recorded(tmp_path: Path) -> None:
    record = live(tmp_path / "2.rec", "colocated:cloud_gamma=2")
    deeper = replay(record, Changes(policy="colocated:cloud_gamma=6"))
    themselves = live(tmp_path / "6.rec", "colocated:cloud_gamma=6").sessions[0].figures
    assert deeper.same_tokens
    for name in COUNTS:
        assert deeper.replayed[name] == themselves[name], name
    for name in TIMES:
        assert deeper.replayed[name] == pytest.approx(float(themselves[name]), rel=0.05), name


def test_a_session_of_the_edge_is_replayed_with_a_draft_in_the_cloud_of_a_given_profile(tmp_path: Path) -> None:
    """The server had one, and said what it would have guessed."""
    record = live(tmp_path / "sync.rec", "sync:gamma=4")
    with pytest.raises(RecordError, match=r"no draft model in the cloud is recorded.*'colocated'.*--cloud-draft"):
        replay(record, Changes(policy="colocated"))
    done = replay(record, Changes(policy="colocated", cloud_draft=STEP))
    themselves = live(tmp_path / "colocated.rec", "colocated").sessions[0].figures
    assert done.same_tokens
    for name in COUNTS:
        assert done.replayed[name] == themselves[name], name
    for name in TIMES:
        assert done.replayed[name] == pytest.approx(float(themselves[name]), rel=0.05), name


def test_where_there_was_no_draft_in_the_cloud_it_guesses_what_the_edges_did(tmp_path: Path) -> None:
    record = live(tmp_path / "sync.rec", "sync:gamma=4", new_drafter=None)
    assert {one.cloud_rank for one in record.sessions[0].positions} == {UNASKED}
    done = replay(record, Changes(policy="colocated:cloud_gamma=4", cloud_draft=STEP))
    assert done.same_tokens
    fewer = 40 * (1 / 5) + 40 / 5  # a pass ends at every fifth position, where the edge's draft is wrong, or is full
    assert done.replayed["passes"] <= fewer
    assert done.replayed["drafted"] > 0


def test_a_session_of_the_cloud_is_replayed_with_a_draft_at_the_edge_of_a_given_profile(tmp_path: Path) -> None:
    record = live(tmp_path / "r.rec", "colocated")
    with pytest.raises(RecordError, match=r"the edge drafted nothing in it .* name a profile with --edge"):
        replay(record, Changes(policy="sync:gamma=4"))
    done = replay(record, Changes(policy="sync:gamma=4", edge=STEP))
    themselves = live(tmp_path / "sync.rec", "sync:gamma=4").sessions[0].figures
    assert done.same_tokens
    for name in COUNTS:
        assert done.replayed[name] == themselves[name], name
    for name in TIMES:
        assert done.replayed[name] == pytest.approx(float(themselves[name]), rel=0.05), name


def test_a_simulated_session_is_replayed_with_a_draft_in_the_cloud_of_a_given_profile(tmp_path: Path) -> None:
    record = record_of(scenario(tmp_path), "sync:gamma=4", tmp_path / "r.rec")
    with pytest.raises(RecordError, match="no draft model in the cloud is recorded"):
        replay(record, Changes(policy="colocated"))
    cloud = ('profile = "a100-qwen2-vl-7b"', 'profile = "a100-qwen2-vl-7b"\ndraft = "robot-5-draft"')
    themselves = record_of(scenario(tmp_path, cloud), "colocated", tmp_path / "c.rec")
    done = replay(record, Changes(policy="colocated", cloud_draft=STEP))
    assert done.replayed == replay(themselves).replayed


# Older records


def as_before(file: Path) -> Record:
    """The record as a Foredraft wrote it whose cloud did not tell of its draft."""
    frames = []
    for frame in frames_in(file.read_bytes()):
        if isinstance(frame, Noted) and "draft_us" in frame.data:
            kept = {name: value for name, value in frame.data.items() if name != "draft_us"}
            frame = msgspec.structs.replace(frame, data=kept)
        whole = encode_frame(frame)
        if isinstance(frame, TokenPredictions):
            payload = msgspec.msgpack.encode(msgspec.msgpack.decode(whole[8:])[:-2])
            whole = struct.pack(">II", len(payload), zlib.crc32(payload)) + payload
        frames.append(whole)
    file.write_bytes(HEADER + b"".join(frames))
    return read_record(file)


def test_a_record_from_before_the_cloud_told_of_its_draft_is_replayed_with_a_given_profile(tmp_path: Path) -> None:
    live(tmp_path / "r.rec", "colocated")
    record = as_before(tmp_path / "r.rec")
    assert record.cut is None
    assert {one.cloud_rank for one in record.sessions[0].positions} == {UNASKED}
    with pytest.raises(RecordError, match=r"'colocated' needs; name a profile with --cloud-draft"):
        replay(record)
    done = replay(record, Changes(cloud_draft=STEP))
    assert_near(done)
    noted = done.replication.record.noted
    pass_s = [one.data["pass_s"] for one in noted if (one.where, one.kind) == ("edge", "commit")]
    real = TARGET
    assert fmean(pass_s) == pytest.approx(seconds(real.target_pass, 5, 50), rel=0.05)  # without the drafting


# What is private, and the command line


def test_a_private_record_of_a_draft_in_the_cloud_holds_none_of_its_tokens(tmp_path: Path) -> None:
    record = live(tmp_path / "r.rec", "colocated", private=True)
    (session,) = record.sessions
    assert [one.cloud_rank for one in session.positions] == [
        0 if position % 3 else BEYOND for position in range(START, START + 40)
    ]
    assert {one.cloud_guesses for one in session.positions} == {((-1, 0.7),)}
    durations = [one.data["draft_us"] for one in session.noted if "draft_us" in one.data]
    assert sum(map(len, durations)) == session.figures["drafted"]
    data = (tmp_path / "r.rec").read_bytes()
    for first in range(START, START + 36):
        four = bytes(clouds.truth(position) for position in range(first, first + 4))
        assert four not in data


def test_replay_takes_a_draft_in_the_cloud_from_the_command_line(tmp_path: Path) -> None:
    live(tmp_path / "r.rec", "sync:gamma=4")
    arguments = ["replay", str(tmp_path / "r.rec"), "--policy", "colocated", "--cloud-draft", "robot-5-draft"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["profiles"]["cloud_draft"], said["same_tokens"]) == ("robot-5-draft", True)
    assert "draft in the cloud: " in CliRunner().invoke(app, arguments).stdout
    refused = CliRunner().invoke(app, arguments[:4])
    assert refused.exit_code == 2
    assert "--cloud-draft" in refused.stderr
