"""Recording live sessions: from Python and from the command line, without getting in a session's way."""

import resource
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api import clouds
from cli.test_cli_generate import serving
from foredraft import RecordError, connect, read_record
from foredraft.api.cloud import Cloud
from foredraft.cli.main import app
from foredraft.cloud.read_back import read_back
from foredraft.edge.connections import Retry
from foredraft.edge.handshake import shake_hands
from foredraft.edge.policy import Policy
from foredraft.engines.scripted import ScriptedDrafter, ScriptedTarget
from foredraft.errors import LinkClosedError
from foredraft.links.memory import MemoryLink
from foredraft.links.tap import Tap
from foredraft.observe.record import BEYOND
from foredraft.observe.record.event_lines import event_lines
from foredraft.observe.trace import chrome_trace
from foredraft.policies import make_policy
from foredraft.policies.parameters import describe_policy
from foredraft.protocol.events import Event
from foredraft.protocol.messages import Message, Open, Predictions, Read, Refused, Steer, pack
from foredraft.protocol.ports import Guess, Link
from foredraft.protocol.sampling import Sampling
from observe.record.recorded_sessions import PROMPT, START, recorded, session
from observe.record.trace_checks import checked, names

POLICIES = ("cloud", "sync:gamma=3", "seed", "ahead", "auto")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_live_session_is_recorded_with_ranks_and_exits_at_every_position(tmp_path: Path, policy: str) -> None:
    report = recorded(tmp_path / "x.rec", policy=policy, seed=3, temperature=0.5)
    record = read_record(tmp_path / "x.rec")
    (one,) = record.sessions
    assert (record.cut, record.notes, record.setup.policy, record.setup.simulated) == (None, (), policy, False)
    assert (one.tokens, one.prompt, one.finish) == (report.tokens, clouds.TOKENIZER.encode(PROMPT), "length")
    assert (one.sampling, one.figures["e2e_s"]) == (Sampling(0.5, 0, 1.0, 3), report.e2e_s)
    for at in one.positions:
        assert at.token == clouds.truth(at.position)
        assert at.rank == (0 if at.position % 5 else BEYOND)
        assert at.predictions == ((at.token if at.position % 3 else 0, 0.8),) * 2
        assert at.right == ((at.token == at.predictions[0][0]),) * 2
    assert len(one.positions) == 40


def test_messages_are_noted_with_their_bytes_and_commits_with_round_trips(tmp_path: Path) -> None:
    report = recorded(tmp_path / "x.rec", policy="sync")
    noted = read_record(tmp_path / "x.rec").noted
    up = [one.data["bytes"] for one in noted if one.where == "uplink"]
    assert sum(up) == report.bytes_up
    assert sum(one.data["bytes"] for one in noted if one.where == "downlink") == report.bytes_down
    commits = [one for one in noted if one.kind == "Commit"]
    assert len(commits) == report.passes
    assert all(one.data["round_trip_s"] >= 0.0 for one in commits)
    steps = [one for one in noted if (one.where, one.kind) == ("edge", "draft")]
    assert sum(one.data["took_s"] for one in steps) == pytest.approx(report.draft_s)


def test_an_observer_hears_what_it_heard_before(tmp_path: Path) -> None:
    heard: list[Event] = []
    recorded(tmp_path / "x.rec", observer=heard.append)
    noted = [one for one in read_record(tmp_path / "x.rec").noted if one.where == "edge" and one.kind != "connect"]
    assert [(one.t_s, one.kind, one.data) for one in heard] == [(one.t_s, one.kind, one.data) for one in noted]


async def test_a_lost_link_is_in_the_record(tmp_path: Path) -> None:
    """Every second token the cable is cut."""
    links: list[Link] = []

    class Cutting(Cloud):
        async def connect(self) -> Link:
            links.append(await super().connect())
            return links[-1]

    cloud = Cutting(clouds.target(), clouds.TOKENIZER)
    async with cloud, connect(cloud, draft=clouds.drafter(), retry=Retry(attempts=50, first_s=0.001)) as edge:
        generation = edge.generate(PROMPT, policy="cloud", max_new_tokens=12, record=tmp_path / "x.rec")
        async with aclosing(generation) as pieces:
            count = 0
            async for _ in pieces:
                count += 1
                if count in (2, 4):
                    link = links[-1]
                    assert isinstance(link, MemoryLink)
                    link.cut()
    noted = [one.kind for one in read_record(tmp_path / "x.rec").noted if one.where == "edge"]
    lost = generation.report.reconnects
    assert lost >= 1
    assert (noted.count("retry"), noted.count("connect"), noted.count("open")) == (lost, lost + 1, lost + 1)
    events = checked(chrome_trace([read_record(tmp_path / "x.rec")]))
    assert {"link lost", "connected"} <= names(events, "i")


async def test_a_session_that_is_left_early_leaves_a_record_of_what_there_was(tmp_path: Path) -> None:
    async with clouds.cloud() as cloud, connect(cloud, draft=clouds.drafter()) as edge:
        generation = edge.generate(PROMPT, policy="cloud", max_new_tokens=40, record=tmp_path / "x.rec")
        taken = [*(await anext(generation)).tokens, *(await anext(generation)).tokens]
        await generation.aclose()
    record = read_record(tmp_path / "x.rec")
    assert record.sessions[0].ended is None
    assert record.sessions[0].tokens[:2] == taken
    assert record.cut is None
    assert "the session ended early: GeneratorExit" in record.notes


async def test_a_record_file_is_readable_while_the_session_runs(tmp_path: Path) -> None:
    async with clouds.cloud() as cloud, connect(cloud, draft=clouds.drafter()) as edge:
        generation = edge.generate(PROMPT, policy="cloud", max_new_tokens=40, record=tmp_path / "x.rec")
        await anext(generation)
        record = read_record(tmp_path / "x.rec")
        assert record.sessions[0].tokens[0] == clouds.truth(START)
        assert record.cut is not None
        assert record.cut.reason == "the end was never written"
        await generation.finish()
    assert read_record(tmp_path / "x.rec").cut is None


async def test_a_cloud_that_knows_no_read_costs_the_exits_readings_alone(tmp_path: Path) -> None:
    """As an older server would, this one refuses the message."""

    class Old(Cloud):
        async def connect(self) -> Link:
            return Deaf(await super().connect())

    class Deaf(Tap):
        async def send(self, message: Message) -> None:
            nonsense = Open(9, b"", 0, 0.0, 0, 1.0, 0, 1, (), (), Steer(9, 1))
            await super().send(nonsense if isinstance(message, Read) else message)

    async with Old(clouds.target(), clouds.TOKENIZER) as cloud, connect(cloud, draft=clouds.drafter()) as edge:
        report = await edge.generate(PROMPT, policy="sync", max_new_tokens=9, record=tmp_path / "x.rec").finish()
    record = read_record(tmp_path / "x.rec")
    assert report.new_tokens == len(record.sessions[0].positions) == 9
    assert [one.predictions for one in record.sessions[0].positions] == [()] * 9
    assert record.sessions[0].positions[1].rank in (0, BEYOND)
    (note,) = record.notes
    assert note.startswith("the exits were not asked about each token: generation starts at 0")


async def test_a_recorder_serves_one_session(tmp_path: Path) -> None:
    _, recorder = await session(tmp_path / "x.rec")
    async with clouds.cloud() as cloud, connect(cloud, draft=clouds.drafter()) as edge:
        with pytest.raises(RecordError, match="records one session"):
            edge.generate(PROMPT, record=recorder)


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
async def test_a_file_that_cannot_be_written_is_said_before_the_session() -> None:
    with pytest.raises(RecordError, match="cannot record to /dev/full: No space left"):
        await session(FULL)


async def test_a_disk_that_fills_up_ends_the_record_and_not_the_session(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with clouds.cloud() as cloud, connect(cloud, draft=clouds.drafter()) as edge:
        generation = edge.generate(PROMPT, policy="cloud", max_new_tokens=40, record=tmp_path / "x.rec")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
        try:
            with pytest.raises(RecordError, match=r"x\.rec: the record is incomplete: File too large"):
                await generation.finish()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    record = read_record(tmp_path / "x.rec")
    assert generation.report.new_tokens == 40
    assert record.cut is not None
    assert 0 < len(record.sessions[0].tokens) < 40


def test_a_policy_is_described_so_that_it_can_be_made_again() -> None:
    for spec in ("cloud", "sync", "sync:gamma=7", "seed:gamma=3,threshold=0.25", "auto:cost_weight=0.5", "ahead"):
        policy: Policy = make_policy(spec)
        assert make_policy(describe_policy(policy)) == policy
        assert describe_policy(make_policy(describe_policy(policy))) == describe_policy(policy)


# Reading back


@pytest.mark.parametrize(
    ("prompt", "tokens", "nodes", "chunk"), [(5, 20, 4, 3), (1, 1, 8, 512), (40, 7, 32, 16), (3, 64, 1, 1)]
)
async def test_reading_back_asks_every_exit_about_every_token(prompt: int, tokens: int, nodes: int, chunk: int) -> None:
    target = ScriptedTarget(
        clouds.truth,
        exit_script=lambda layer, position: (layer * 1000 + position, layer / 10),
        exits=(2, 4),
        max_pass_nodes=nodes,
        prefill_chunk=chunk,
    )
    text = [clouds.truth(position) for position in range(prompt + tokens)]
    said: dict[int, list[int]] = {2: [], 4: []}
    async for position, heard in read_back(target, text, prompt, Sampling()):
        assert position == prompt + len(said[2])
        for one in heard:
            said[one.layer] += one.tokens
    assert said == {layer: [layer * 1000 + at for at in range(prompt, prompt + tokens)] for layer in (2, 4)}


async def said_of_a_text(cloud: Cloud, count: int) -> list[Message]:
    """What a cloud answers to a question about so many tokens after the first ten."""
    async with cloud:
        link = await cloud.connect()
        await shake_hands(link)
        await link.send(Read(1, pack([clouds.truth(position) for position in range(10 + count)]), 10, 0.0, 0, 1.0, 0))
        answers: list[Message] = []
        told = 0
        while told < count:
            answers.append(await link.receive())
            if not isinstance(answers[-1], Predictions):
                break
            told += len(answers[-1].drafted)
        await link.close()
        return answers


@pytest.mark.parametrize("exits", [True, False])
async def test_the_cloud_tells_what_its_draft_guesses_in_the_place_of_each_token(exits: bool) -> None:
    blocks = await said_of_a_text(Cloud(clouds.target(exits=exits), clouds.TOKENIZER, new_drafter=clouds.drafter), 600)
    assert all(isinstance(block, Predictions) and bool(block.exits) == exits for block in blocks)
    drafted = [guess for block in blocks if isinstance(block, Predictions) for guess in block.drafted]
    assert drafted == [(clouds.truth(position) if position % 5 else 0, 0.7) for position in range(10, 610)]


async def test_a_draft_without_an_idea_says_so_in_its_place() -> None:
    (block,) = await said_of_a_text(Cloud(clouds.target(), clouds.TOKENIZER, new_drafter=clueless_at_odd), 4)
    assert isinstance(block, Predictions)
    assert block.drafted == ((1, 0.5), None, (1, 0.5), None)


async def test_a_draft_in_the_cloud_is_asked_whether_or_not_it_drafted_in_the_session(tmp_path: Path) -> None:
    target = clouds.target(exits=False)
    async with (
        Cloud(target, clouds.TOKENIZER, new_drafter=clouds.drafter) as cloud,
        connect(cloud, draft=clouds.drafter()) as edge,
    ):
        await edge.generate(PROMPT, policy="sync", max_new_tokens=9, record=tmp_path / "x.rec").finish()
    record = read_record(tmp_path / "x.rec")
    assert record.notes == ()
    assert [(one.cloud_rank, one.predictions) for one in record.sessions[0].positions] == [
        (0 if position % 5 else BEYOND, ()) for position in range(START, START + 9)
    ]


def clueless_at_odd() -> ScriptedDrafter:
    return ScriptedDrafter(lambda position, _: [] if position % 2 else [Guess(1, 0.5)])


async def test_a_cloud_with_neither_exits_nor_draft_has_nothing_to_tell() -> None:
    (answer,) = await said_of_a_text(Cloud(clouds.target(exits=False), clouds.TOKENIZER), 4)
    assert isinstance(answer, Refused)
    assert "neither exits nor a draft model" in answer.reason


async def test_the_cloud_tells_what_its_exits_say_and_refuses_nonsense() -> None:
    async with clouds.cloud() as cloud:
        link = await cloud.connect()
        await shake_hands(link)
        text = [clouds.truth(position) for position in range(50)]
        await link.send(Read(1, pack(text), 10, 0.0, 0, 1.0, 0))
        first = await link.receive()
        assert isinstance(first, Predictions)
        assert (first.position, [layer for layer, _, _ in first.exits]) == (10, [2, 4])
        for strange in (Read(2, pack(text), 51, 0.0, 0, 1.0, 0), Read(3, b"\x80", 1, 0.0, 0, 1.0, 0)):
            await link.send(strange)
        answers: list[Message] = []
        while sum(isinstance(one, Refused) for one in answers) < 2:
            answers.append(await link.receive())
        assert sum(isinstance(one, Predictions) for one in answers) <= 1
        await link.close()
        with pytest.raises(LinkClosedError):
            await link.send(Read(4, pack(text), 1, 0.0, 0, 1.0, 0))


# The command line


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(clouds.cloud()) as address:
        yield address


def generate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["generate", "--prompt", PROMPT, *map(str, arguments)])


def test_generate_writes_record_trace_and_events(url: str, tmp_path: Path) -> None:
    files = {name: tmp_path / f"x.{name}" for name in ("record", "trace", "events")}
    options = [part for name, file in files.items() for part in (f"--{name}", file)]
    done = generate("--server", url, "--policy", "seed:gamma=3", "--max-new-tokens", "30", "--rtt-ms", "4", *options)
    assert done.exit_code == 0, done.output
    assert done.stdout == clouds.text_between(START, START + 30) + "\n"
    record = read_record(files["record"])
    assert record.setup.policy == "seed:gamma=3"
    assert record.setup.link is not None
    assert record.setup.link["up"]["delay_s"] == 0.002
    assert files["events"].read_bytes() == event_lines(record)
    assert files["trace"].read_bytes() == chrome_trace([record])
    events = checked(files["trace"].read_bytes())
    tracks = {"seed:gamma=3: device 0", "seed:gamma=3: server 0", "drafting", "uplink", "downlink"}
    assert tracks | {f"{what} of request 0" for what in ("passes", "layers", "exits")} <= names(events, "M")
    assert {"draft", "pass", "Grow", "Commit", "Hint"} <= names(events, "X")
    assert sum(event["ph"] == "f" for event in events) >= 3


@pytest.mark.parametrize("option", ["--record", "--trace", "--events"])
def test_a_folder_that_is_not_there_is_said_before_anything_is_tried(tmp_path: Path, option: str) -> None:
    done = generate("--server", "http://127.0.0.1:9", option, tmp_path / "no" / "x")
    assert done.exit_code == 2
    assert "there is no folder" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_private_without_a_record_is_a_mistake() -> None:
    done = generate("--server", "http://127.0.0.1:9", "--private")
    assert done.exit_code == 2
    assert "give --record FILE" in done.stderr


def test_a_server_that_does_not_answer_leaves_no_file(tmp_path: Path) -> None:
    done = generate(
        "--server", "http://127.0.0.1:9", "--retries", "0", "--record", tmp_path / "x", "--trace", tmp_path / "t"
    )
    assert done.exit_code == 1
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []
