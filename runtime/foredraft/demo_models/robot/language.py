"""The robot's little language: its tokenizer, its chat template, and what surrounds a question.

Byte-level BPE as the bundled pair's, learned from instructions and plans; Qwen2-VL's marks are single tokens.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from foredraft.demo_models.tokenizer import learn_tokenizer, save_tokenizer
from foredraft.robot.camera import HEIGHT, WIDTH
from foredraft.robot.expert import expert_plan
from foredraft.robot.plans import write_plan
from foredraft.robot.walk import Episode, advance
from foredraft.robot.world import NAMES, make_world

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
SPECIAL = (END_OF_TEXT, START, END, VISION_START, VISION_END, IMAGE, VIDEO)
"""Qwen2-VL's marks; the first seven tokens of the vocabulary."""

VOCABULARY = 384
PATCH, MERGE = 14, 2
"""Pixels of a patch's side, and patches of a token's side, as in Qwen2-VL."""

GRID = (1, HEIGHT // PATCH, WIDTH // PATCH)
"""A view in patches: moments, rows, columns."""

IMAGE_TOKENS = GRID[1] * GRID[2] // MERGE**2
MAX_POSITIONS = 256

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2-VL's, without its system prompt."""


def prompt(question: str) -> str:
    """What the chat template makes of a view and a question, the image's one mark repeated for each of its tokens."""
    image = f"{VISION_START}{IMAGE * IMAGE_TOKENS}{VISION_END}"
    return f"{START}user\n{image}{question}{END}\n{START}assistant\n"


def learn_language(worlds: range) -> Tokenizer:
    """A tokenizer learned from what is asked and answered at the start of these worlds, every name among it."""
    texts = ["user\nassistant\n", *(f"the {name}\nseen: {name}\n" for name in NAMES)]
    for seed in worlds:
        episode = Episode(make_world(seed))
        while not episode.is_over:
            plan = expert_plan(episode.world, episode.pose)
            texts += [episode.question, write_plan(plan)]
            episode = advance(episode, plan)
    return learn_tokenizer(texts, VOCABULARY, SPECIAL)


def save_language(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer, the chat template and the image processor's settings as `save_pretrained` would."""
    said = {"eos_token": END, "pad_token": END_OF_TEXT, "processor_class": "Qwen2VLProcessor"}
    save_tokenizer(tokenizer, folder, MAX_POSITIONS, said)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
