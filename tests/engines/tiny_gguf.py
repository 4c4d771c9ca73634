"""GGUF files of a few kilobytes with random weights, for llama.cpp; and files that it cannot draft with."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

VOCABULARY, CONTEXT = 258, 256
_WIDTH, _LAYERS, _HEADS, _INNER = 64, 2, 4, 96
_NORMAL, _CONTROL = 1, 3

HINT = "needs llama-cpp-python: make gguf-draft"


def needs_llama() -> None:
    """Skip the tests of a module where llama-cpp-python is not installed."""
    pytest.importorskip("llama_cpp", reason=HINT)


def words() -> list[str]:
    """The tokens: two marks, then letters that no two share."""
    return ["<s>", "</s>", *(chr(0x4E00 + number) for number in range(VOCABULARY - 2))]


def tiny_gguf(
    file: Path,
    tokens: Sequence[str] | None = None,
    *,
    marks: Collection[int] = (0, 1),
    arch: str = "llama",
    vocabulary: bool = True,
) -> Path:
    """A model of two layers. ``tokens``: in the place of ``words``, ``marks`` the special ones.

    ``vocabulary``: whether the file has one.
    """
    tokens = words() if tokens is None else list(tokens)
    writer = GGUFWriter(file, arch)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_vocab_size(len(tokens))
    if vocabulary:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores([0.0] * len(tokens))
        writer.add_token_types([_CONTROL if number in marks else _NORMAL for number in range(len(tokens))])
    else:
        writer.add_tokenizer_model("no_vocab")
    random = np.random.default_rng(7)
    shapes = {"token_embd": (len(tokens), _WIDTH), "output": (len(tokens), _WIDTH)}
    for layer in range(_LAYERS):
        shapes |= {f"blk.{layer}.attn_{name}": (_WIDTH, _WIDTH) for name in ("q", "output")}
        shapes |= {f"blk.{layer}.attn_{name}": (_WIDTH // 2, _WIDTH) for name in ("k", "v")}
        shapes |= {f"blk.{layer}.ffn_{name}": (_INNER, _WIDTH) for name in ("gate", "up")}
        shapes[f"blk.{layer}.ffn_down"] = (_WIDTH, _INNER)
    for name, shape in shapes.items():
        spread = 1.0 if name in ("token_embd", "output") else 2.0 / shape[1] ** 0.5
        writer.add_tensor(f"{name}.weight", (random.standard_normal(shape) * spread).astype(np.float32))
    norms = [f"blk.{layer}.{name}_norm" for layer in range(_LAYERS) for name in ("attn", "ffn")]
    for name in (*norms, "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(_WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
