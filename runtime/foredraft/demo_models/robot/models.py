"""Small models of Qwen2-VL's architecture: eyes, and a language model that reads what they see among its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from foredraft.demo_models.robot.language import (
    END,
    END_OF_TEXT,
    IMAGE,
    MAX_POSITIONS,
    MERGE,
    PATCH,
    SPECIAL,
    VIDEO,
    VISION_END,
    VISION_START,
    VOCABULARY,
)

HEAD = 32
"""Numbers in an attention head, of eyes and language model alike."""

MROPE_SECTION = (4, 6, 6)
"""Of the half head's rotary pairs: how many turn with the moment, the row and the column, in Qwen2-VL's proportion."""


ROPE_THETA, EYE_ROPE_THETA = 10.0, 100.0
"""Low, for an image of 3 by 4 tokens and 6 by 8 patches: with Qwen2-VL's, columns and rows would look all the same."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How deep and wide eyes and language model are. All widths are multiples of `HEAD`."""

    layers: int
    hidden: int
    intermediate: int
    kv_heads: int
    eye_layers: int
    eye_width: int


def build_model(shape: Shape, vocabulary: int = VOCABULARY) -> Any:
    """An untrained model of this shape in fp32, its embeddings tied."""
    ids = {token: number for number, token in enumerate(SPECIAL)}
    text = {
        "vocab_size": vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.hidden // HEAD,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": MAX_POSITIONS,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA, "mrope_section": list(MROPE_SECTION)},
        "bos_token_id": ids[END_OF_TEXT],
        "eos_token_id": ids[END],
        "pad_token_id": ids[END_OF_TEXT],
        "tie_word_embeddings": True,
    }
    eyes = {
        "depth": shape.eye_layers,
        "embed_dim": shape.eye_width,
        "num_heads": shape.eye_width // HEAD,
        "hidden_size": shape.hidden,
        "mlp_ratio": 4,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
        "rope_parameters": {"rope_type": "axial", "rope_theta": EYE_ROPE_THETA},
    }
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=eyes,
        image_token_id=ids[IMAGE],
        video_token_id=ids[VIDEO],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        tie_word_embeddings=True,
    )
    return Qwen2VLForConditionalGeneration(config)


def load(folder: Path) -> Any:
    """A stored model in fp32, frozen."""
    return Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
