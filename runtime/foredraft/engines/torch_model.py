"""A causal language model of transformers, loaded, named and ready to run in ranges of layers."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from foredraft.engines import model_files
from foredraft.engines.masks import MaskMaker, Masks
from foredraft.engines.torch_layers import Layer, Rotary, Store, lay_out_head, take_layers
from foredraft.errors import ConfigError, ModelError
from foredraft.protocol.messages import MAX_TOKEN_ID

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory. ``model`` is the transformers module, frozen and in evaluation mode.

    ``norm`` and ``lm_head`` turn the hidden states of the last layer into logits; none of the
    supported families scales or caps them. ``digest`` names the stored weights, whatever type they
    are loaded into. ``context`` is the longest text in tokens.
    """

    model: Any
    config: Any
    folder: Path
    digest: str
    tokenizer_digest: str
    device: torch.device
    dtype: torch.dtype
    layers: tuple[Layer, ...]
    rotary: Rotary
    masks: MaskMaker
    norm: nn.Module
    lm_head: nn.Module
    vocab_size: int
    context: int
    stop_tokens: tuple[int, ...]

    @property
    def kv_shape(self) -> tuple[int, int, int]:
        """Layers, key heads and head dimension of a cache."""
        return len(self.layers), self.layers[0].heads, self.layers[0].dim

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids ``[batch, rows]`` to hidden states ``[batch, rows, width]``."""
        embedded: Tensor = self.model.model.embed_tokens(tokens)
        return embedded

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states after the last layer, ``[..., width]``, to logits ``[..., vocab]``."""
        logits: Tensor = self.lm_head(self.norm(hidden))
        return logits

    def outside(self, tokens: Collection[int]) -> str:
        """What is wrong with ``tokens``: names the first id outside the vocabulary; empty when all is well."""
        if not tokens or (min(tokens) >= 0 and max(tokens) < self.vocab_size):
            return ""
        bad = next(token for token in tokens if not 0 <= token < self.vocab_size)
        return (
            f"token id {bad} is outside the vocabulary of {self.folder.name!r}, 0 to {self.vocab_size - 1}: "
            "draft and target need the same tokenizer"
        )


def load_model(model: str | Path, dtype: str = "float32", device: str = "cpu") -> LoadedModel:
    """Load a causal model of the Llama, Mistral, Qwen2 or Qwen3 family.

    ``model``: a folder or a hub id; ``dtype``: float32, bfloat16 or float16; ``device``: as torch names it.
    Raises ModelError for a model that cannot be found or run, ConfigError for a wrong dtype or device.
    """
    torch_dtype, torch_device = dtype_named(dtype), device_named(device)
    folder = model_files.locate(model)
    config = _read_config(folder)
    _refuse_unsuitable(folder, config)
    module = _read_weights(folder, config, torch_dtype).to(torch_device)
    digests = model_files.model_digest(folder), model_files.tokenizer_digest(folder)
    return ready(module, config, folder, digests, torch_dtype, torch_device)


def ready(
    module: Any, config: Any, folder: Path, digests: tuple[str, str], dtype: torch.dtype, device: torch.device
) -> LoadedModel:
    """A transformers module, on its device and frozen, made ready to run; ``digests``: the model's, the tokenizer's."""
    lay_out_head(module.lm_head, tied=bool(config.tie_word_embeddings))
    context = int(config.max_position_embeddings)
    layers = tuple(take_layers(module.model, config))
    window = min((layer.window for layer in layers if layer.window), default=None)
    return LoadedModel(
        model=module,
        config=config,
        folder=folder,
        digest=digests[0],
        tokenizer_digest=digests[1],
        device=device,
        dtype=dtype,
        layers=layers,
        rotary=Rotary(module.model.rotary_emb, dtype, device, context),
        masks=MaskMaker(dtype, device, window),
        norm=module.model.norm,
        lm_head=module.lm_head,
        vocab_size=int(config.vocab_size),
        context=context,
        stop_tokens=_stop_tokens(module),
    )


def run_range(
    loaded: LoadedModel,
    hidden: Tensor,
    rope: tuple[Tensor, Tensor],
    masks: Masks,
    stores: Sequence[Store] | None,
    span: range,
) -> Tensor:
    """Run the layers of ``span`` over ``hidden`` (``[batch, rows, width]``)."""
    cos, sin = rope
    for index in span:
        layer = loaded.layers[index]
        mask = masks.full if layer.window is None else masks.sliding
        hidden = layer(hidden, cos, sin, mask, None if stores is None else stores[index])
    return hidden


def run_layers(loaded: LoadedModel, tokens: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
    """Hidden states of whole sequences after each of ``layers`` (counts of layers that ran), without a cache.

    ``tokens``: ``[batch, length]``, no padding. Each result: ``[batch, length, width]``, before any norm;
    0 gives the embeddings, the model's number of layers what ``loaded.logits`` takes. No gradient flows.
    """
    length = tokens.shape[1]
    with torch.no_grad():
        rope = loaded.rotary.span(0, length)
        masks = loaded.masks.chain(0, length)
        hidden = loaded.embed(tokens.to(loaded.device))
        done, results = 0, {}
        for layer in sorted(layers):
            hidden = run_range(loaded, hidden, rope, masks, None, range(done, layer))
            done, results[layer] = layer, hidden
    return results


def dtype_named(name: str) -> torch.dtype:
    """The type of that name. Raises ConfigError."""
    if name not in DTYPES:
        raise ConfigError(f"unknown dtype {name!r}; known: {', '.join(DTYPES)}")
    return DTYPES[name]


def device_named(name: str) -> torch.device:
    """The device of that name, tried. Raises ConfigError."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was compiled with CUDA
        raise ConfigError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}; 'cpu' always can") from error
    return device


def _read_config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the configuration in {str(folder)!r} cannot be read: {error}") from error


def _refuse_unsuitable(folder: Path, config: Any) -> None:
    """Raise ModelError for a model whose layers or cache cannot be run by hand."""
    name = repr(str(folder))
    if config.model_type not in FAMILIES:
        raise ModelError(
            f"{name} is of the {config.model_type!r} family, whose layers and cache cannot be run in segments and "
            f"rolled back here; models of these families work: {', '.join(FAMILIES)}"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(f"{name} is quantized, which is not supported; use its float32, bfloat16 or float16 version")
    rope = str((config.rope_parameters or {}).get("rope_type", "default"))
    if rope in _LENGTH_DEPENDENT_ROPE:
        raise ModelError(
            f"{name} has {rope!r} rotary positions, which change with the length of the text and so cannot be "
            "cached; set rope_type to 'default', 'linear', 'llama3' or 'yarn' in config.json"
        )
    if not 0 < config.vocab_size <= MAX_TOKEN_ID + 1:
        raise ModelError(f"{name} has a vocabulary of {config.vocab_size}, more than the protocol's {MAX_TOKEN_ID + 1}")


def _read_weights(folder: Path, config: Any, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    model_files.weight_files(folder)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # whoever loads a model has an output of its own
    try:
        module, report = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the weights in {str(folder)!r} cannot be loaded: {error}") from error
    finally:
        if shown:
            logging.enable_progress_bar()
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would run with random numbers in their place
        raise ModelError(f"the weights in {str(folder)!r} lack {len(missing)} tensors, {missing[0]!r} first")
    return module.eval().requires_grad_(False)


def _stop_tokens(module: Any) -> tuple[int, ...]:
    """The model's own end marks, from its generation settings or else its configuration."""
    stop = module.generation_config.eos_token_id if module.generation_config else None
    stop = module.config.eos_token_id if stop is None else stop
    if stop is None:
        return ()
    return (int(stop),) if isinstance(stop, int) else tuple(int(token) for token in stop)
