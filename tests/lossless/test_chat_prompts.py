"""Chat templates render as transformers renders them."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from foredraft.text.chat_card import ChatCard, read_chat_card
from foredraft.text.chat_template import render
from real_model import real_model

CONVERSATION = [
    {"role": "system", "content": "Be <brief> & exact."},
    {"role": "user", "content": "Grüße 🍕"},
    {"role": "assistant", "content": "Hallo"},
    {"role": "user", "content": "Again"},
]
TOOLS = [{"type": "function", "function": {"name": "go", "parameters": {"type": "object", "title": "Straße <1>"}}}]
TEMPLATE = """{{ bos_token }}
{%- for message in messages %}
    {%- if loop.first and tools %}
        {{- 'TOOLS ' + (tools | tojson) }}
    {%- endif %}
    {%- if message.role == 'assistant' %}{% continue %}{% endif %}
    {{ message.role }}: {{ message.content | trim }}
{% endfor %}
{%- if add_generation_prompt %}assistant:{% endif %}"""


def rendered_by_transformers(folder: Path, template: str | None, tools: list[dict[str, object]] | None) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    said: str = tokenizer.apply_chat_template(
        CONVERSATION, tools=tools, chat_template=template, add_generation_prompt=True, tokenize=False
    )
    return said


@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_the_prompt_is_that_of_transformers(template: str | None, tools: list[dict[str, object]] | None) -> None:
    folder = real_model()
    card = read_chat_card(folder)
    assert card.template is not None
    ours = ChatCard(card.name, template or card.template, card.template_tokens)
    assert render(ours, CONVERSATION, tools) == rendered_by_transformers(folder, template, tools)
