"""The protocol's page says what the code does: fields, limits, hashes and the example exchange."""

import re
from typing import Any

import msgspec
import pytest
from aiohttp import web
from msgspec import inspect

import foredraft
from api.clouds import TOKENIZER, TOKENS, cloud, drafter, truth
from docs.page_peers import PageCloud, generate
from foredraft.images import MAX_PIXELS
from foredraft.links import probing
from foredraft.protocol import messages
from foredraft.protocol.anchor import ORIGIN
from foredraft.protocol.messages import Message, decode, encode, unpack
from paths import ROOT

PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
KINDS: tuple[type[msgspec.Struct], ...] = Message.__args__


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_messages_table_has_its_tag_and_its_fields_in_order(kind: type[msgspec.Struct]) -> None:
    section = re.search(rf"### {kind.__name__}\n\nTag (\d+), from the (edge|cloud): .*?(?=\n##|\Z)", PAGE, re.DOTALL)
    assert section is not None
    assert int(section[1]) == kind.__struct_config__.tag
    assert (section[2] == "edge") == (kind in messages.ToCloud.__args__)
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]*) \|", section[0], re.MULTILINE)
    struct = inspect.type_info(kind)
    assert isinstance(struct, inspect.StructType)
    assert [name for name, _, _ in rows] == [field.name for field in struct.fields]
    for (name, said, default), field in zip(rows, struct.fields, strict=True):
        packed = name == "tokens" and said == "tokens"
        assert packed or said == type_on_the_page(field.type), name
        assert default.strip() == ("" if field.required else default_on_the_page(field.default)), name


def type_on_the_page(kind: inspect.Type) -> str:
    """How the page names a type, ranges included."""
    match kind:
        case inspect.IntType(ge=0):
            return "uint"
        case inspect.IntType(ge=least):
            return f"uint >= {least}"
        case inspect.FloatType(ge=0.0, le=1e9):
            return "seconds"
        case inspect.FloatType(ge=0.0, le=3600.0):
            return "wait"
        case inspect.FloatType(ge=0.0, le=1.0):
            return "probability"
        case inspect.FloatType(le=0.0):
            return "logarithm"
        case inspect.BytesType(min_length=messages.IMAGE_DIGEST_BYTES):
            return "digest"
        case inspect.BytesType(max_length=messages.MAX_PIECE_BYTES):
            return "binary"
        case inspect.BytesType(max_length=messages.WEIGHTS_BYTES):
            return "weights"
        case inspect.BytesType():
            return "tokens"
        case inspect.StructType(cls=cls):
            return cls.__name__
        case inspect.VarTupleType(item_type=item):
            return f"[{type_on_the_page(item)}]"
        case inspect.TupleType(item_types=items):
            return f"[{', '.join(map(type_on_the_page, items))}]"
        case inspect.UnionType(types=types):
            rest = [type_on_the_page(one) for one in types if not isinstance(one, inspect.NoneType)]
            return f"{rest[0]} or nil"
        case _:
            return {inspect.StrType: "str", inspect.BoolType: "bool", inspect.FloatType: "float"}[type(kind)]


def default_on_the_page(value: Any) -> str:
    if value == ():
        return "`[]`"
    if value is None:
        return "`nil`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, int | float) else '`""`'


def test_no_message_is_missing_and_none_is_made_up() -> None:
    assert set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)) == {kind.__name__ for kind in KINDS}


def test_every_code_and_reason_of_the_code_is_on_the_page_and_no_other() -> None:
    table = PAGE[PAGE.index("| code | means |") : PAGE.index("`unknown_anchor` and `full` are")]
    codes = {messages.BUSY, messages.UNAUTHORIZED, messages.VERSION, messages.MISMATCH, messages.INVALID}
    codes |= {messages.TOO_LONG, messages.UNKNOWN_ANCHOR, messages.UNSEEN, messages.FULL, messages.INTERNAL}
    codes.add(messages.LATE)
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == codes
    assert ", ".join((messages.LENGTH, messages.STOP, messages.CONTEXT)) in PAGE


def test_limits_and_version_are_those_of_the_code() -> None:
    assert f"# The protocol, version {messages.PROTOCOL_VERSION}" in PAGE
    assert f"at most {messages.MAX_MESSAGE_BYTES:,} bytes" in PAGE
    assert f"at most {messages.MAX_CHAINS};" in PAGE
    assert f"at most {messages.MAX_IMAGES} |" in PAGE
    assert f"at most {messages.MAX_IMAGE_BYTES:,} bytes and {MAX_PIXELS:,} pixels" in PAGE
    assert f"at most {messages.MAX_PIECE_BYTES:,} bytes |" in PAGE
    assert f"at most {messages.WEIGHTS_BYTES // messages.WEIGHT_BYTES} of them |" in PAGE
    assert messages.MAX_TOKEN_ID + 1 == 1 << 28
    assert "below 2^28" in PAGE


def test_the_hashes_are_those_of_the_anchors() -> None:
    rows = re.findall(r"^\| (\(none\)|[\d, ]+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 6
    for tokens, said in rows:
        text = [] if tokens == "(none)" else [int(token) for token in tokens.split(",")]
        assert ORIGIN.after(text).hash == int(said)


def test_the_example_is_a_conversation_that_decodes_and_encodes_to_the_same_bytes() -> None:
    lines = re.findall(r"^(edge|cloud): (\w+) ([0-9a-f]+)$", PAGE, re.MULTILINE)
    assert [name for _, name, _ in lines] == ["Hello", "Ready", "Open", "Hint", "Commit", "Grow", "Close"]
    for who, name, said in lines:
        message = decode(bytes.fromhex(said))
        assert type(message).__name__ == name
        assert isinstance(message, messages.ToCloud if who == "edge" else messages.ToEdge)
        assert encode(message).hex() == said
    opened, commit = (decode(bytes.fromhex(said)) for _, name, said in lines if name in ("Open", "Commit"))
    assert isinstance(opened, messages.Open)
    assert isinstance(commit, messages.Commit)
    assert (unpack(opened.tokens), unpack(opened.chains[0].tokens)) == ([1, 2, 300], [40, 50])
    assert opened.chains[0].anchor == ORIGIN.after([1, 2, 300])
    assert unpack(commit.tokens) == [40, 60]


def test_the_numbers_of_the_probe_are_those_of_the_code() -> None:
    section = PAGE[PAGE.index("### Measuring the link") : PAGE.index("## An example")]
    rows = re.findall(r"^\| (\d) \| (\w+) \|", section, re.MULTILINE)
    kinds = {"echo": probing.ECHO, "sink": probing.SINK, "report": probing.REPORT, "stream": probing.STREAM}
    assert {name: int(number) for number, name in rows} == kinds
    assert f"above {probing.CHUNK_BYTES:,} bytes" in section
    assert f"{probing.MOST_BYTES:,} bytes each way, {probing.MOST_MESSAGES:,} messages" in section
    assert f"{probing.MOST_SECONDS:g} seconds, and be silent for {probing.MOST_SILENT_S:g}" in section


async def test_an_edge_written_from_the_page_gets_the_text_of_our_cloud_with_its_drafts_accepted() -> None:
    prompt = TOKENS[:5]
    async with cloud("the key") as here, here.listen() as url:
        text, accepted = await generate(url, "the key", prompt, 40, truth)
    assert text == [truth(position) for position in range(5, 45)]
    assert accepted >= 20


@pytest.mark.parametrize(("policy", "drafts"), [("cloud", False), ("sync", True), ("seed", True)])
async def test_our_edge_gets_the_text_of_a_cloud_written_from_the_page(policy: str, drafts: bool) -> None:
    peer = PageCloud(truth, TOKENIZER.json, TOKENIZER.digest, "the key")
    runner = web.AppRunner(peer.app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with foredraft.connect(f"http://127.0.0.1:{port}", draft=drafter(), api_key="the key") as edge:
            report = await edge.generate(TOKENS[:5], policy=policy, max_new_tokens=40).finish()
    finally:
        await runner.cleanup()
    assert list(report.tokens) == [truth(position) for position in range(5, 45)]
    assert bool(peer.accepted) == drafts
