"""The protocol on the wire: what goes in comes out, and whatever else comes in is a ProtocolError."""

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foredraft.errors import ProtocolError
from foredraft.protocol import messages
from foredraft.protocol.messages import (
    IMAGE_DIGEST_BYTES,
    MAX_IMAGE_BYTES,
    MAX_IMAGES,
    MAX_MESSAGE_BYTES,
    MAX_TOKEN_ID,
    Chain,
    Close,
    Commit,
    Constrain,
    Drain,
    Grow,
    Hello,
    Hint,
    Image,
    Message,
    Open,
    Predictions,
    Propose,
    Proposed,
    Read,
    Ready,
    Refused,
    Show,
    Shown,
    Steer,
    decode,
    encode,
    pack,
    pack_weights,
    unpack,
    unpack_weights,
)

COUNT = st.integers(0, 2**63 - 1)
SECONDS = st.floats(0, 1e9)
PROBABILITY = st.floats(0, 1)
TOKEN_IDS = st.integers(0, MAX_TOKEN_ID)
PACKED = st.lists(TOKEN_IDS, max_size=8).map(pack)
CHAINS = st.lists(st.builds(Chain, COUNT, st.integers(0, 2**64 - 1), PACKED), max_size=3).map(tuple)
COUNTS = st.lists(COUNT, max_size=3).map(tuple)
WAIT = st.floats(0, 3600)
DIGEST = st.binary(min_size=IMAGE_DIGEST_BYTES, max_size=IMAGE_DIGEST_BYTES)
STEER = st.builds(Steer, COUNT, COUNT, COUNT, SECONDS, COUNT, COUNT, COUNTS, PROBABILITY, COUNT, COUNT, COUNT)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, COUNT, st.text()),
    st.builds(
        Ready, COUNT, st.text(), st.text(), COUNT, COUNT, COUNT, COUNTS, COUNT, COUNT, st.integers(1, 2**63 - 1),
        COUNTS, SECONDS, st.text(), COUNT, passes_s=st.lists(SECONDS, max_size=7).map(tuple),
    ),
    st.builds(
        Open, COUNT, PACKED, COUNT, st.floats(allow_nan=False), COUNT, st.floats(allow_nan=False), COUNT, COUNT,
        COUNTS, st.lists(st.text(), max_size=3).map(tuple), STEER, CHAINS,
    ),
    st.builds(Grow, COUNT, CHAINS),
    STEER,
    st.builds(Close, COUNT),
    st.builds(Hint, COUNT, COUNT, COUNT, PACKED, PROBABILITY, SECONDS),
    st.builds(
        Commit, COUNT, COUNT, PACKED, COUNT, COUNT, SECONDS, SECONDS, SECONDS, st.text(), SECONDS, COUNT, SECONDS,
        COUNTS,
    ),
    st.builds(
        Propose, COUNT,
        st.lists(st.builds(Proposed, COUNT, st.integers(0, 2**64 - 1), PACKED, st.binary(max_size=16))).map(tuple),
    ),
    st.builds(Constrain, COUNT, st.text(), st.text()),
    st.builds(Show, COUNT, st.lists(DIGEST, max_size=MAX_IMAGES).map(tuple)),
    st.builds(Image, DIGEST, st.integers(1, MAX_IMAGE_BYTES), COUNT, st.binary(max_size=64)),
    st.builds(Shown, COUNT, st.lists(PACKED, max_size=3).map(tuple)),
    st.builds(Refused, COUNT, st.text(), st.text(), st.none() | WAIT, COUNT, st.integers(0, 2**64 - 1)),
    st.builds(Drain, WAIT),
    st.builds(
        Read, COUNT, PACKED, COUNT, st.floats(allow_nan=False), COUNT, st.floats(allow_nan=False), COUNT
    ),
    st.builds(
        Predictions, COUNT, COUNT,
        st.lists(st.tuples(COUNT, PACKED, st.lists(PROBABILITY, max_size=3).map(tuple)), max_size=3).map(tuple),
        st.lists(st.none() | st.tuples(COUNT, PROBABILITY), max_size=3).map(tuple),
    ),
)  # fmt: skip

EXAMPLES: dict[str, Message] = {
    "hello": Hello(1, "key"),
    "ready": Ready(1, "model", "tok", 32000, 4096, 32, (8, 16), 256, 32, 64, (2,), 0.5, "sync:gamma=4", 8),
    "open": Open(
        1,
        pack([1, 300, 70000]),
        3,
        0.8,
        50,
        0.9,
        7,
        128,
        (2,),
        ("\n\n",),
        Steer(1, 1, exits=(8,)),
        (Chain(3, 7, pack([9])),),
    ),
    "grow": Grow(1, (Chain(300, 0xFEDCBA9876543210, pack([5, 300, 70000, 31999])),)),
    "steer": Steer(1, 2, 10, 0.25, 3, 4, (8, 16), 0.5, 12, 6, 800),
    "close": Close(1),
    "hint": Hint(1, 300, 8, pack([5, 300]), 0.75, 0.125),
    "commit": Commit(1, 300, pack([5, 6]), 4, 1, 0.0, 0.25, 0.5, "stop", 0.5, 9, 0.125, (900, 70000)),
    "refused": Refused(1, "full", "no", 0.0, 300, 1),
    "drain": Drain(2.0),
    "read": Read(1, pack([1, 300, 70000]), 1, 0.8, 50, 0.9, 7),
    "constrain": Constrain(1, "regex", "[0-9]+"),
    "show": Show(1, (b"0123456789abcdef",)),
    "image": Image(b"0123456789abcdef", 300, 2, b"\x89PNG"),
    "shown": Shown(1, (pack([7, 7, 300]),)),
    "propose": Propose(1, (Proposed(300, 0xFEDCBA9876543210, pack([5, 300]), pack_weights([65535, 2])),)),
    "readings": Predictions(1, 300, ((8, pack([5, 300]), (0.5, 1.0)),), ((5, 0.25), None)),
}

GOLDEN = {
    "hello": "930001a36b6579",
    "ready": "dc00120101a56d6f64656ca3746f6bcd7d00cd100020920810cd010020409102cb3fe0000000000000ac73796e633a67616d6d613d3408c2c090",  # noqa: E501
    "open": "9e0201c40601ac02f0a20403cb3fe999999999999a32cb3feccccccccccccd07cc80910291a20a0a9c04010100cb000000000000000001019108cb3ff000000000000000000091930307c40109a0",  # noqa: E501
    "grow": "9303019193cd012ccffedcba9876543210c40905ac02f0a204fff901",
    "steer": "9c0401020acb3fd00000000000000304920810cb3fe00000000000000c06cd0320",
    "close": "920501",
    "hint": "970601cd012c08c40305ac02cb3fe8000000000000cb3fc0000000000000",
    "commit": "9e0701cd012cc40205060401cb0000000000000000cb3fd0000000000000cb3fe0000000000000a473746f70cb3fe000000000000009cb3fc000000000000092cd0384ce00011170",  # noqa: E501
    "refused": "970801a466756c6ca26e6fcb0000000000000000cd012c01",
    "drain": "9209cb4000000000000000",
    "read": "980a01c40601ac02f0a20401cb3fe999999999999a32cb3feccccccccccccd07",
    "show": "930f0191c41030313233343536373839616263646566",
    "image": "9510c41030313233343536373839616263646566cd012c02c40489504e47",
    "shown": "93110191c4040707ac02",
    "constrain": "940e01a57265676578a65b302d395d2b",
    "propose": "9312019194cd012ccffedcba9876543210c40305ac02c404ffff0002",
    "readings": "950b01cd012c919308c40305ac0292cb3fe0000000000000cb3ff0000000000000929205cb3fd0000000000000c0",
}


@given(MESSAGES)
def test_every_message_survives_the_wire(message: Message) -> None:
    data = encode(message)
    assert decode(data) == message
    assert type(decode(data)) is type(message)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_wire_format_of_version_2_does_not_change_silently(name: str) -> None:
    assert messages.PROTOCOL_VERSION == 2, "a new version: write down its golden bytes"
    assert encode(EXAMPLES[name]).hex() == GOLDEN[name]
    assert decode(bytes.fromhex(GOLDEN[name])) == EXAMPLES[name]


@pytest.mark.parametrize("name", ["commit", "readings"])
def test_what_a_cloud_did_not_tell_yet_of_its_draft_is_nothing(name: str) -> None:
    whole = msgspec.msgpack.decode(bytes.fromhex(GOLDEN[name]))
    before = decode(msgspec.msgpack.encode(whole[:-1]))
    assert isinstance(before, Commit | Predictions)
    assert (before.draft_us if isinstance(before, Commit) else before.drafted) == ()


def test_a_round_of_four_tokens_costs_at_most_forty_bytes_up_with_framing() -> None:
    largest = Grow(1, (Chain(1 << 15, 2**64 - 1, pack([31999] * 4)),))  # a vocabulary of 32k
    framing = 2 + 4  # a masked WebSocket frame of less than 126 bytes
    assert len(encode(largest)) + framing <= 40


@given(st.lists(TOKEN_IDS, max_size=64))
def test_packed_token_ids_come_back(tokens: list[int]) -> None:
    assert unpack(pack(tokens)) == tokens
    assert len(pack(tokens)) == sum(1 if t < 1 << 7 else 2 if t < 1 << 14 else 3 if t < 1 << 21 else 4 for t in tokens)


@pytest.mark.parametrize("token", [-1, MAX_TOKEN_ID + 1])
def test_a_token_id_that_the_wire_cannot_carry_is_named(token: int) -> None:
    with pytest.raises(ProtocolError, match=f"token id {token} is outside"):
        pack([1, token])


@given(st.binary(max_size=40))
def test_unpacking_anything_gives_tokens_in_range_or_a_protocol_error(data: bytes) -> None:
    try:
        tokens = unpack(data)
    except ProtocolError:
        return
    assert all(0 <= token <= MAX_TOKEN_ID for token in tokens)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"\x80", "cut off"), (b"\x05\xff\xff", "cut off"), (b"\xff\xff\xff\xff\x01", "above"), (b"\x80" * 9, "above")],
)
def test_a_cut_or_oversized_token_id_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        unpack(data)


@given(st.binary(max_size=64))
def test_garbage_is_a_protocol_error_or_a_message(data: bytes) -> None:
    decodes_or_refuses(data)


@given(MESSAGES, st.data())
def test_a_damaged_message_is_a_protocol_error_or_another_message(message: Message, data: st.DataObject) -> None:
    damaged = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    decodes_or_refuses(bytes(damaged))


@given(MESSAGES, st.data())
def test_a_cut_message_is_a_protocol_error(message: Message, data: st.DataObject) -> None:
    whole = encode(message)
    with pytest.raises(ProtocolError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


def decodes_or_refuses(data: bytes) -> None:
    try:
        message = decode(data)
    except ProtocolError:
        return
    whole = encode(message)
    assert encode(decode(whole)) == whole  # as bytes: a NaN, which is refused later, equals nothing


def test_an_oversize_message_is_refused_unread() -> None:
    with pytest.raises(ProtocolError, match="more than 1048576"):
        decode(b"\x00" * (MAX_MESSAGE_BYTES + 1))


def test_deep_nesting_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        decode(b"\x91" * 100_000)


NAN = float("nan")


@pytest.mark.parametrize(
    "message",
    [
        Grow(1, (Chain(-1, 0, b""),)),
        Grow(-1, (Chain(1, 0, b""),)),
        Grow(1, (Chain(1, 0, b""),) * (messages.MAX_CHAINS + 1)),
        Steer(1, 1, alone_until=-1),
        Steer(1, 1, patience_s=NAN),
        Steer(1, 1, patience_s=float("inf")),
        Steer(1, 1, threshold=NAN),
        Steer(1, 1, threshold=1.5),
        Commit(1, -3, b"", 0, 0, 0.0, 0.0, 0.0),
        Commit(1, 3, b"", 0, 0, NAN, 0.0, 0.0),
        Hint(1, 1, 1, b"", NAN, 0.0),
        Hint(1, 1, 1, b"", 2.0, 0.0),
        Refused(1, "busy", "", NAN),
        Drain(-1.0),
        Drain(1e300),
        Ready(1, "", "", 1, 1, 1, (), 1, 1, 0, ()),
    ],
    ids=repr,
)
def test_numbers_that_make_no_sense_do_not_pass(message: Message) -> None:
    with pytest.raises(ProtocolError):
        decode(encode(message))


def test_an_unknown_tag_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="not a message of protocol 2"):
        decode(msgspec.msgpack.encode([99, 1]))


def test_text_that_is_not_utf8_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        decode(b"\x93\x00\x01\xa1\x80")


def test_a_server_of_before_there_were_recommendations_recommends_nothing_and_drafts_nothing() -> None:
    before = "9d0101a56d6f64656ca3746f6bcd7d00cd100020920810cd010020409102cb3fe0000000000000"
    ready = decode(bytes.fromhex(before))
    assert ready == Ready(1, "model", "tok", 32000, 4096, 32, (8, 16), 256, 32, 64, (2,), 0.5)
    assert isinstance(ready, Ready)
    assert (ready.policy, ready.cloud_drafts) == ("", 0)


@given(st.integers() | st.floats() | st.binary() | st.none() | st.lists(st.text()))
def test_a_recommendation_that_is_no_text_is_a_protocol_error(said: object) -> None:
    plain = msgspec.msgpack.decode(bytes.fromhex(GOLDEN["ready"]))
    plain[13] = said
    try:
        data = msgspec.msgpack.encode(plain)
    except OverflowError:  # a number that MessagePack has no word for
        return
    with pytest.raises(ProtocolError):
        decode(data)


def test_fields_that_a_later_version_adds_are_passed_over() -> None:
    assert decode(msgspec.msgpack.encode([5, 7, "new", struct.pack("<d", 1.0)])) == Close(7)


@given(st.lists(st.integers(1, 2**16 - 1), max_size=8))
def test_weights_of_sixteen_bits_come_back(weights: list[int]) -> None:
    assert unpack_weights(pack_weights(weights)) == weights
    assert len(pack_weights(weights)) == 2 * len(weights)


@pytest.mark.parametrize("packed", [b"\x01", b"\x00\x00", b"\x00\x01\x00\x00"])
def test_a_weight_that_is_cut_off_or_nothing_is_refused(packed: bytes) -> None:
    with pytest.raises(ProtocolError, match="16 bits each, and above 0"):
        unpack_weights(packed)
