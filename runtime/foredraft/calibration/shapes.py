"""Models of a known shape with random weights: they say nothing of worth, in the time that the real ones take."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from foredraft.engines.torch_model import LoadedModel, device_named, dtype_named, ready
from foredraft.errors import ConfigError, UnknownNameError
from foredraft.exits.card import TABLE_SIZE, Calibration, ExitCard
from foredraft.exits.heads import ExitHead, ExitHeads

SHAPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "llama2-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "llama-68m": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 2,
        "num_attention_heads": 12,
        "max_position_embeddings": 2048,
    },
    "qwen2.5-0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "vocab_size": 512,
    },
}
"""What differs from Llama 2's own configuration; ``tiny`` is for trying a measurement out."""

_LLAMA_2: Final = {"vocab_size": 32000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}


def random_model(shape: str, dtype: str, device: str) -> LoadedModel:
    """A model of that shape with random weights. It has no digest. Raises UnknownNameError, ConfigError."""
    if shape not in SHAPES:
        raise UnknownNameError("shape", shape, SHAPES)
    torch_dtype, torch_device = dtype_named(dtype), device_named(device)
    config = LlamaConfig(**{**_LLAMA_2, **SHAPES[shape]})
    try:
        with (
            torch.random.fork_rng(devices=[torch_device] if torch_device.type == "cuda" else []),
            torch.device(torch_device),
        ):
            torch.manual_seed(0)
            before = torch.get_default_dtype()
            torch.set_default_dtype(torch_dtype)
            try:
                module = LlamaForCausalLM(config)
            finally:
                torch.set_default_dtype(before)
    except torch.OutOfMemoryError as error:
        raise ConfigError(f"a {shape} in {dtype} does not fit into the memory of {device}") from error
    module = module.eval().requires_grad_(False)
    return ready(module, config, Path(shape), ("", ""), torch_dtype, torch_device)


def random_exits(model: LoadedModel, layers: tuple[int, ...]) -> ExitHeads:
    """Untrained exits after ``layers``; by default after a quarter, a half and three quarters. Raises ConfigError."""
    depth = len(model.layers)
    layers = layers or tuple(sorted({max(1, depth * part // 4) for part in (1, 2, 3)}))
    if not all(0 < layer < depth for layer in layers) or list(layers) != sorted(set(layers)):
        raise ConfigError(f"exits after layers {list(layers)}: each must be above 0 and below {depth}, in rising order")
    flat = Calibration(0.0, (0.5,) * TABLE_SIZE)
    card = ExitCard(
        format=1,
        model=model.folder.name,
        model_digest=model.digest,
        model_layers=depth,
        layers=layers,
        rank=0,
        weights_digest="",
        text_digest="",
        text_tokens=0,
        held_out_tokens=0,
        steps=0,
        seed=0,
        distance=(),
        calibration=tuple((flat,) for _ in layers),
        report=(),
    )
    return ExitHeads(model, {layer: ExitHead(model.norm, 0) for layer in layers}, card)
