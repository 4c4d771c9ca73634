"""What a model's folder says of chats; templates that go wrong are tested with the routes (``openai_api``)."""

import sys
from pathlib import Path

import pytest

from foredraft.errors import MissingExtraError
from foredraft.text.chat_card import ChatCard, parse_chat_card, read_chat_card
from foredraft.text.chat_template import _compiled, render

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


def test_a_folder_that_says_nothing_has_an_empty_card(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("[broken")
    assert read_chat_card(tmp_path) == ChatCard(tmp_path.name)


def test_without_jinja_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _compiled.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"foredraft\[openai\]"):
        render(ChatCard("m", "{{ messages }}"), CONVERSATION)
