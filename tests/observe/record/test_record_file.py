"""The record file: what is written is read, a cut costs what comes after it, and everything else is an error."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft import RecordError, read_record
from foredraft.observe.record import BEYOND, UNASKED
from foredraft.observe.record.frames import (
    HEADER,
    MAX_TOKENS,
    Asked,
    Began,
    Closed,
    Ended,
    Frame,
    Noted,
    Passed,
    Setup,
    TokenPredictions,
    decode_frame,
    encode_frame,
)
from foredraft.observe.record.privacy import hidden
from foredraft.observe.record.reading import parse_record
from foredraft.protocol.anchor import ORIGIN
from foredraft.protocol.messages import MAX_TOKEN_ID, pack
from observe.record.recorded_sessions import MODELS, SETUP, START, recorded

COUNT = st.integers(0, 2**63 - 1)
TOKEN = st.integers(0, MAX_TOKEN_ID)
TOKENS = st.lists(TOKEN, max_size=5).map(tuple)
SECONDS = st.floats(0, 1e9)
SAID = st.lists(st.tuples(st.integers(-1, MAX_TOKEN_ID), st.floats(0, 1)), max_size=3).map(tuple)
VALUE = st.none() | st.booleans() | COUNT | SECONDS | st.text(max_size=5) | st.lists(COUNT, max_size=3)
DATA = st.dictionaries(st.text(max_size=5), VALUE, max_size=3)
PROFILE = st.none() | DATA
NOTED = st.builds(Noted, st.just(0), COUNT, SECONDS, st.text(max_size=5), st.text(max_size=5), DATA)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        Setup, st.text(max_size=5), st.booleans(), st.booleans(), st.text(max_size=5), st.just(MODELS), COUNT,
        PROFILE, PROFILE, PROFILE, PROFILE, st.text(max_size=5), PROFILE,
    ),
    st.builds(
        Began, COUNT, COUNT, SECONDS, SECONDS, COUNT, TOKENS.map(pack), SECONDS, COUNT, SECONDS, COUNT, COUNT,
        TOKENS, st.lists(st.text(max_size=3), max_size=2).map(tuple),
    ),
    NOTED,
    st.builds(Asked, COUNT, SECONDS, st.sampled_from(["edge", "cloud"]), COUNT, st.integers(0, 2**64 - 1), COUNT, SAID),
    st.builds(Passed, COUNT, COUNT, TOKENS, TOKENS, st.lists(st.tuples(COUNT, SAID), max_size=2).map(tuple)),
    st.builds(
        TokenPredictions, COUNT, COUNT, st.integers(-2, 64), SAID, SAID, st.lists(st.booleans(), max_size=3).map(tuple),
        st.integers(-2, 64), SAID,
    ),
    st.builds(
        Ended, COUNT, st.integers(0, MAX_TOKENS), TOKENS.map(pack), st.text(max_size=5),
        st.dictionaries(st.text(), SECONDS),
    ),
    st.builds(Closed, st.lists(st.text(max_size=5), max_size=2).map(tuple)),
)  # fmt: skip

TEXT = (7, 9, 256)
PROMPT = (1, 2)


def small(*, private: bool = False) -> list[Frame]:
    """A session of three tokens: the first drafted, the second not, the third not asked about."""
    root = ORIGIN.after(PROMPT)
    frames: list[Frame] = [
        SETUP,
        Began(0, 0, 0.0, 0.5, 2, pack(PROMPT), 0.8, 0, 1.0, 3, 8, (256,), ("\n\n",)),
        Asked(0, 0.7, "edge", root.position, root.hash, 2, ((7, 0.75), (8, 0.25))),
        Noted(0, 0, 0.7, "edge", "draft", {"began_s": 0.6, "took_s": 0.1, "nodes": 1, "grown": 2}),
        Noted(0, 0, 0.9, "edge", "commit", {"position": 2, "tokens": [7, 9], "drafted": 1, "accepted": 1}),
        Noted(0, 0, 1.1, "edge", "commit", {"position": 4, "tokens": [256], "drafted": 0, "accepted": 0}),
        Ended(0, 3, pack(TEXT), "stop", {"e2e_s": 0.5}),
        TokenPredictions(0, 2, 0, ((7, 0.75), (8, 0.25)), ((7, 0.9), (7, 0.95)), (True, True)),
        TokenPredictions(0, 3, BEYOND, ((8, 0.5),), ((8, 0.4), (9, 0.6)), (False, True)),
        Closed(("a note",)),
    ]
    return [frame for frame in map(hidden, frames) if frame is not None] if private else frames


def written(frames: list[Frame]) -> bytes:
    return HEADER + b"".join(map(encode_frame, frames))


def committed(tokens: object) -> Noted:
    """What an edge hears of tokens, if these are any."""
    return Noted(0, 0, 0.9, "edge", "commit", {"tokens": tokens})


@given(FRAMES)
def test_every_frame_comes_back_as_it_was(frame: Frame) -> None:
    data = encode_frame(frame)
    assert decode_frame(memoryview(data), 0) == (frame, len(data))


@given(st.lists(NOTED, max_size=6))
def test_a_file_holds_what_was_noted_in_its_order(noted: list[Noted]) -> None:
    record = parse_record(written([SETUP, small()[1], *noted, Closed()]), Path("x"))
    assert list(record.noted) == noted
    assert list(record.sessions[0].noted) == noted
    assert record.cut is None


def test_a_record_puts_a_session_together() -> None:
    record = parse_record(written(small()), Path("x.rec"))
    (session,) = record.sessions
    assert (record.setup, record.notes, record.cut) == (SETUP, ("a note",), None)
    assert (session.prompt, session.tokens, session.finish) == ([1, 2], [7, 9, 256], "stop")
    assert (session.sampling.temperature, session.rules.strings) == (0.8, ("\n\n",))
    assert session.figures == {"e2e_s": 0.5}
    assert [one.rank for one in session.positions] == [0, BEYOND, UNASKED]
    assert [one.position for one in session.positions] == [2, 3, 4]
    assert session.positions[1].right == (False, True)


def test_a_file_cut_at_any_byte_is_readable_up_to_the_cut() -> None:
    frames = small()
    whole = written(frames)
    ends = [len(HEADER)]
    for frame in frames:
        ends.append(ends[-1] + len(encode_frame(frame)))
    for size in range(len(whole)):
        good = sum(end <= size for end in ends) - 1  # whole frames
        if good < 1:
            with pytest.raises(RecordError, match=f"x: nothing is recorded: cut off at byte .* of {size}:"):
                parse_record(whole[:size], Path("x"))
            continue
        record = parse_record(whole[:size], Path("x"))
        assert record.cut is not None
        assert (record.cut.at_byte, record.cut.size_bytes) == (ends[good], size)
        kept = frames[:good]
        assert list(record.noted) == [frame for frame in kept if isinstance(frame, Noted)]
        for session in record.sessions:
            ended = any(isinstance(frame, Ended) for frame in kept)
            commits = sum(isinstance(frame, Noted) and frame.kind == "commit" for frame in kept)
            assert session.tokens == ([*TEXT] if ended else [*TEXT][: (0, 2, 3)[commits]])
            if session.asked and session.tokens:
                assert session.positions[0].rank == 0  # from what the draft said in the session


@pytest.mark.parametrize("at", [len(HEADER) + 30, -20])
def test_a_damaged_frame_ends_what_is_readable(at: int) -> None:
    data = bytearray(written(small()))
    data[at] ^= 0xFF
    if at > 0:
        with pytest.raises(RecordError, match="the checksum does not fit"):
            parse_record(bytes(data), Path("x"))
    else:
        cut = parse_record(bytes(data), Path("x")).cut
        assert cut is not None
        assert cut.at_byte < len(data)


def test_zeros_where_a_crash_left_them_are_a_cut() -> None:
    frames = written(small()[:4])
    cut = parse_record(frames + bytes(100), Path("x")).cut
    assert cut is not None
    assert (cut.at_byte, str(cut)) == (
        len(frames),
        f"cut off at byte {len(frames)} of {len(frames) + 100}: a frame of 0 bytes",
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            b"foredraft record 2\nwhatever",
            "x.rec: a record of version 2, and this Foredraft reads version 1; read it with",
        ),
        (b"{}", "x.rec: not a record; records are written by foredraft generate --record FILE"),
        (b"foredraft record x\n", "x.rec: not a record"),
        (b"foredraft record 1 \n", "x.rec: not a record"),
        (b"", "x.rec: nothing is recorded: cut off at byte 0 of 0: the file ends within its header"),
        (HEADER + encode_frame(Closed()), "x.rec: nothing is recorded"),
        (written([SETUP, small()[6]]), "x.rec: a record that contradicts itself"),
        (written([SETUP, small()[1], Ended(0, 1, b"\xff", "stop", {})]), "x.rec: a record that contradicts itself"),
        *(
            (written([SETUP, small()[1], committed(tokens)]), "x.rec: a record that contradicts itself")
            for tokens in ([7, "x"], [7, 0.5], [-2], "7", 1 << 60, -1, None)
        ),
    ],
)
def test_what_is_no_record_of_this_version_is_said_so(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "x.rec").write_bytes(data)
    with pytest.raises(RecordError, match=re.escape(said)):
        read_record(tmp_path / "x.rec")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"none\.rec: cannot be read: No such file"):
        read_record(tmp_path / "none.rec")
    with pytest.raises(RecordError, match="cannot be read: embedded null"):
        read_record(tmp_path / "a\0b")


@given(st.binary(max_size=200))
def test_whatever_follows_a_good_beginning_is_read_or_cut(data: bytes) -> None:
    record = parse_record(written(small()[:2]) + data, Path("x"))
    assert record.cut is not None
    assert record.cut.at_byte >= len(written(small()[:2]))


def test_a_private_record_holds_no_token_and_nothing_to_find_one_by() -> None:
    frames = small(private=True)
    record = parse_record(written(frames), Path("x"))
    (session,) = record.sessions
    assert (session.prompt, session.tokens, session.began.prompt_tokens) == ([], [-1, -1, -1], 2)
    assert session.rules.strings == ("**",)
    assert [one.rank for one in session.positions] == [0, BEYOND, UNASKED]
    assert session.positions[1].guesses == ((-1, 0.5),)
    assert session.positions[1].predictions == ((-1, 0.4), (-1, 0.6))
    assert session.positions[1].right == (False, True)
    assert not session.asked
    assert [one.data["tokens"] for one in session.noted if one.kind == "commit"] == [2, 1]


def test_a_private_recording_of_a_live_session_has_none_of_its_tokens(tmp_path: Path) -> None:
    file = tmp_path / "p.rec"
    report = recorded(file, private=True, policy="ahead")
    session = read_record(file).sessions[0]
    assert session.tokens == [-1] * 40
    assert [one.rank for one in session.positions] == [
        0 if position % 5 else BEYOND for position in range(START, START + 40)
    ]
    data = file.read_bytes()
    for first in range(0, 36, 4):
        four = report.tokens[first : first + 4]
        assert pack(four) not in data
        assert msgspec.msgpack.encode(four)[1:] not in data
