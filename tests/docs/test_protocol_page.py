"""The protocol's page says what the code does: fields, limits, hashes and the example exchange."""

import re

import msgspec
import pytest

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
    assert tuple(re.findall(r"^\| `(\w+)` \|", section[0], re.MULTILINE)) == kind.__struct_fields__


def test_no_message_is_missing_and_none_is_made_up() -> None:
    assert set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)) == {kind.__name__ for kind in KINDS}


def test_every_code_and_reason_of_the_code_is_on_the_page_and_no_other() -> None:
    table = PAGE[PAGE.index("| code | means |") : PAGE.index("After `unknown_anchor`")]
    codes = {messages.BUSY, messages.UNAUTHORIZED, messages.VERSION, messages.MISMATCH, messages.INVALID}
    codes |= {messages.TOO_LONG, messages.UNKNOWN_ANCHOR, messages.FULL, messages.INTERNAL}
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == codes
    assert ", ".join((messages.LENGTH, messages.STOP, messages.CONTEXT)) in PAGE


def test_limits_and_version_are_those_of_the_code() -> None:
    assert f"# The protocol, version {messages.PROTOCOL_VERSION}" in PAGE
    assert f"at most {messages.MAX_MESSAGE_BYTES:,} bytes" in PAGE
    assert f"at most {messages.MAX_CHAINS};" in PAGE
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
