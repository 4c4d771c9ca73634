"""What a model's folder says of chats; templates that go wrong are tested with the routes (``openai_api``)."""

import json
import sys
from pathlib import Path

import pytest

from foredraft.errors import ConfigError, MissingExtraError, ProtocolError
from foredraft.text import chat_template
from foredraft.text.chat_card import ChatCard, parse_chat_card, read_chat_card
from foredraft.text.chat_template import MAX_MEMORY_BYTES, render
from foredraft.text.confined import Confined
from foredraft.text.template_program import answer

PROGRAM = "foredraft.text.template_program"
CONVERSATION = [{"role": "user", "content": "Hello"}]


def test_a_card_is_read_from_the_files_of_a_model_and_travels_as_json(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(
        '{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": null,'
        ' "chat_template": [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}]}'
    )
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.6, "top_k": 20, "top_p": null}')
    card = read_chat_card(tmp_path)
    assert (card.name, card.template) == (tmp_path.name, "yes")
    assert card.template_tokens == {"bos_token": "<s>", "eos_token": "</s>"}
    assert (card.temperature, card.top_k, card.top_p) == (0.6, 20, None)
    assert parse_chat_card(card.to_json()) == card
    (tmp_path / "chat_template.jinja").write_text("a file of its own goes first")
    assert read_chat_card(tmp_path).template == "a file of its own goes first"


@pytest.mark.parametrize("data", [b'{"name": "\xff"}', b"[" * 100_000, b'{"name": ' + b"9" * 5_000, b"", b"3"])
def test_what_is_no_card_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a description of a chat model"):
        parse_chat_card(data)


def test_templates_in_files_go_first_and_one_may_be_for_tools(tmp_path: Path) -> None:
    (tmp_path / "chat_template.json").write_text('{"chat_template": "of a processor"}')
    assert read_chat_card(tmp_path).template == "of a processor"
    more = tmp_path / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("tools: {{ tools | tojson(separators=(',', ':'), sort_keys=true) }}")
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "none"}')
    card = read_chat_card(tmp_path)
    assert render(card, CONVERSATION) == "none"
    assert render(card, CONVERSATION, [{"b": "Ä", "a": 1}]) == 'tools: [{"a":1,"b":"Ä"}]'


def test_what_the_assistant_says_may_be_marked_for_training() -> None:
    template = "{% for one in messages %}{% generation %}<{{ one.content }}>{% endgeneration %}{% endfor %}"
    assert render(ChatCard("m", template), CONVERSATION) == "<Hello>"


def test_a_model_of_the_hub_has_its_name_there_and_one_that_does_not_sample_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "models--org--a-model" / "snapshots" / "0a1b2c"
    folder.mkdir(parents=True)
    (folder / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.6}')
    card = read_chat_card(folder)
    assert (card.name, card.temperature) == ("org/a-model", 0.0)


def test_a_folder_that_says_nothing_has_an_empty_card(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("[broken")
    assert read_chat_card(tmp_path) == ChatCard(tmp_path.name)


def test_without_jinja_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"foredraft\[openai\]"):
        render(ChatCard("m", "{{ messages }}"), CONVERSATION)


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TOWER = "{{ ((((9 ** 64) ** 64) ** 64) ** 64) % 7 }}"
DOUBLING = "{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"
LIST = "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}"


@pytest.mark.parametrize("template", [LOOP, TOWER])
def test_a_template_that_would_not_end_is_stopped_even_where_python_cannot_be_interrupted(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_template, "_program", Confined(PROGRAM, 0.5, MAX_MEMORY_BYTES))
    with pytest.raises(ConfigError, match=r"takes more than 0.5 s"):
        render(ChatCard("m", template), CONVERSATION)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% for a in range(99999) %}{{ 'x' * 999 }}{% endfor %}", "writes more than"),
        ("{{ 'a' * 10000000000 }}", "more memory than it may"),
        ("{{ 10000000000 * ['a', 'b'] }}", "more memory than it may"),
        ("{{ 'a' | center(10000000000) }}", "more memory than it may"),
        ("{{ '%010000000000d' % 1 }}", "more memory than it may"),
        ("{{ messages[0].content.ljust(10000000000) }}", "more memory than it may"),
        (DOUBLING, "more memory than it may"),
        (LIST, "more memory than it may"),
        ("{{ messages | tojson(indent=10000000000) }}", "more memory than it may"),
    ],
)
def test_a_template_that_would_fill_the_memory_or_leave_its_sandbox_is_stopped(
    template: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_template, "_program", Confined(PROGRAM, 60.0, MAX_MEMORY_BYTES))
    with pytest.raises(ConfigError, match=said):
        render(ChatCard("m", template), CONVERSATION)
    assert render(ChatCard("m", "the next one is fine"), CONVERSATION) == "the next one is fine"


def test_arithmetic_of_ordinary_size_is_fine() -> None:
    assert (
        render(ChatCard("m", "{{ '-' * 20 }}{{ 2 ** 10 }}{{ 3 * 4 }}{{ 2.5 * 2 }}"), CONVERSATION)
        == "-" * 20 + "1024125.0"
    )


def test_what_pythons_compiler_refuses_cannot_be_read() -> None:
    said = answer(json.dumps({"template": "{{ " + "-" * 201 + "messages }}"}).encode())
    assert "cannot be read" in json.loads(said)["error"]
