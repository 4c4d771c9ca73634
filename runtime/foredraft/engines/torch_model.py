"""A causal language model of transformers, loaded, named, proved and ready to run for many texts at once.

Of a vision-language model it is the half that writes; ``sight`` is the other one.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foredraft.engines import attention, model_files, weights
from foredraft.engines.fast_layers import lay_out_head, quicken
from foredraft.engines.kv_memory import KvShape
from foredraft.engines.ranks import Ranks
from foredraft.engines.rows import Rows
from foredraft.engines.scene import Glimpse
from foredraft.engines.sight import Sight
from foredraft.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory. ``model`` is the transformers module, frozen and in evaluation mode.

    ``backbone`` is what comes before the output layer, ``layers`` its decoder layers. ``norm`` and ``output``
    turn the hidden states of the last layer into logits. ``digest`` names the stored weights, whatever type
    they are loaded into; ``run_digest`` the weights as they run: the same in float32. ``context`` is the longest
    text in tokens. ``ranks``: those that share the model, where this is one of several. ``config`` is that of the
    half that writes; ``sight``: the eyes of a model that has some.
    """

    model: Any
    backbone: Any
    config: Any
    folder: Path
    digest: str
    run_digest: str
    tokenizer_digest: str
    device: torch.device
    dtype: torch.dtype
    layers: tuple[Any, ...]
    kv: KvShape
    norm: nn.Module
    lm_head: nn.Module
    output: Callable[[Tensor], Tensor]
    vocab_size: int
    context: int
    stop_tokens: tuple[int, ...]
    ranks: Ranks | None = None
    sight: Sight | None = None

    def run(self, rows: Rows) -> Tensor:
        """One forward of the rows of several texts: ``[rows, width]``, what ``output`` takes."""
        ids, positions = (part.to(self.device) for part in rows.inputs())
        glimpses = rows.glimpses()
        given = {"input_ids": ids} if not glimpses else seen(self.model.get_input_embeddings()(ids), glimpses)
        with attention.run(rows):
            hidden: Tensor = self.backbone(**given, position_ids=positions, use_cache=False).last_hidden_state
        return hidden[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states after the last layer, ``[..., width]``, to logits ``[..., vocab]``."""
        return self.output(self.norm(hidden))

    def outside(self, tokens: Collection[int]) -> str:
        """What is wrong with ``tokens``: names the first id outside the vocabulary; empty when all is well."""
        if not tokens or (min(tokens) >= 0 and max(tokens) < self.vocab_size):
            return ""
        bad = next(token for token in tokens if not 0 <= token < self.vocab_size)
        return (
            f"token id {bad} is outside the vocabulary of {self.folder.name!r}, 0 to {self.vocab_size - 1}: "
            "draft and target need the same tokenizer"
        )


def load_model(
    model: str | Path,
    dtype: str = "float32",
    device: str = "cpu",
    *,
    quantization: str = "",
    show_progress: bool = False,
    tensor_parallel: int = 1,
) -> LoadedModel:
    """Load a causal model of any family whose attention can be run here; it proves itself (``model_check``).

    ``model``: a folder, a hub id or a GGUF file; ``dtype``: float32, bfloat16 or float16; ``device``: as torch
    names it; ``quantization``: of the weights, see ``weights.QUANTIZATIONS``; ``tensor_parallel``: how many ranks
    share it, of which this process is one.
    Raises ModelError for a model that cannot be found or run, ConfigError for a wrong dtype, device or quantization.
    """
    torch_dtype, torch_device = dtype_named(dtype), device_named(device)
    where = weights.stored(model)
    ranks = Ranks.join(tensor_parallel, torch_device) if tensor_parallel > 1 else None
    digests = where.digest, model_files.tokenizer_digest(where.folder)
    config = weights.read_config(where)
    if ranks is None:
        module = weights.read_weights(where, config, torch_dtype, torch_device, quantization, show_progress)
    else:
        torch_device = ranks.device
        module = weights.read_share(where, config, torch_dtype, ranks, quantization)
    return ready(module, config, where.folder, digests, torch_dtype, torch_device, quantization, ranks)


def ready(
    module: Any,
    config: Any,
    folder: Path,
    digests: tuple[str, str],
    dtype: torch.dtype,
    device: torch.device,
    quantization: str = "",
    ranks: Ranks | None = None,
) -> LoadedModel:
    """A transformers module, on its device and frozen, made ready to run; ``digests``: the model's, the tokenizer's.

    Raises ModelError where what it says through the engine is not what it says by itself.
    """
    from foredraft.engines.model_check import check, examine

    sight = Sight(module, folder) if weights.has_eyes(config) else None
    config = config.get_text_config()
    anatomy = examine(module, config, folder)
    for number, layer in enumerate(anatomy.layers, 1):
        if not quicken(layer, getattr(anatomy.backbone, "rotary_emb", None), int(config.hidden_size)):
            layer.register_forward_hook(partial(_tell, number))  # a faster one tells by itself
    lay_out_head(anatomy.lm_head)
    loaded = LoadedModel(
        model=module,
        backbone=anatomy.backbone,
        config=config,
        folder=folder,
        digest=digests[0],
        run_digest=_run_digest(digests[0], dtype, quantization, ranks),
        tokenizer_digest=digests[1],
        device=device,
        dtype=dtype,
        layers=anatomy.layers,
        kv=anatomy.kv,
        norm=anatomy.norm,
        lm_head=anatomy.lm_head,
        output=anatomy.output,
        vocab_size=int(config.vocab_size),
        context=int(config.max_position_embeddings),
        stop_tokens=_stop_tokens(module),
        ranks=ranks,
        sight=sight,
    )
    check(loaded)
    return loaded


def seen(embedded: Tensor, glimpses: Sequence[Glimpse]) -> dict[str, Any]:
    """What a backbone is given where rows of images take the place of some that were ``embedded`` ``[1, rows, width]``.

    Deeper features go along as Qwen3-VL takes them, the only one that has some.
    """
    at = torch.tensor([row for glimpse in glimpses for row in glimpse.at], device=embedded.device)
    rows = torch.cat([glimpse.rows for glimpse in glimpses])
    given: dict[str, Any] = {"inputs_embeds": embedded.index_copy(1, at, rows.unsqueeze(0).to(embedded))}
    if glimpses[0].deep:
        mask = torch.zeros(embedded.shape[:2], dtype=torch.bool, device=embedded.device)
        given["visual_pos_masks"] = mask.index_fill(1, at, value=True)
        levels = zip(*(glimpse.deep for glimpse in glimpses), strict=True)
        given["deepstack_visual_embeds"] = [torch.cat(level) for level in levels]
    return given


def _run_digest(digest: str, dtype: torch.dtype, quantization: str, ranks: Ranks | None) -> str:
    """Other weights say other texts: of a model in half precision, or of few bits, this is not the stored one's.

    In half precision sums of another number of shares do, too.
    """
    if dtype == torch.float32 and not quantization:
        return digest
    shares = f" {ranks.count}" if ranks is not None else ""
    return hashlib.sha256(f"{digest} {dtype} {quantization}{shares}".encode()).hexdigest()[: len(digest)]


def _tell(layers: int, module: Any, args: Any, output: Any) -> None:
    forward = attention.running()
    if forward is not None:
        forward.after(layers, output[0] if isinstance(output, tuple) else output)


def run_layers(loaded: LoadedModel, tokens: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
    """Hidden states of whole sequences after each of ``layers`` (counts of layers that ran), without a cache.

    ``tokens``: ``[batch, length]``, no padding. Each result: ``[batch, length, width]``, before the final norm:
    the model's number of layers gives what ``loaded.logits`` takes. No gradient flows.
    """
    listener = _Listener(frozenset(layers))
    with torch.no_grad(), attention.run(listener), suppress(_EnoughError):
        loaded.backbone(input_ids=tokens.to(loaded.device), use_cache=False)
    return listener.heard


class _EnoughError(Exception):
    """No later layer is wanted."""


class _Listener:
    """A forward of whole texts, without a cache, that keeps hidden states."""

    def __init__(self, wanted: frozenset[int]) -> None:
        self.heard: dict[int, Tensor] = {}
        self.scratch: dict[str, Any] = {}
        self._wanted = wanted

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, rules: dict[str, Any]) -> Tensor:
        return attention.causal(query, key, value, rules).transpose(1, 2)

    def after(self, layers: int, hidden: Tensor) -> None:
        if layers in self._wanted:
            self.heard[layers] = hidden
            if len(self.heard) == len(self._wanted):
                raise _EnoughError


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


def _stop_tokens(module: Any) -> tuple[int, ...]:
    """The model's own end marks, from its generation settings or else its configuration."""
    stop = module.generation_config.eos_token_id if module.generation_config else None
    stop = module.config.get_text_config().eos_token_id if stop is None else stop
    if stop is None:
        return ()
    return (int(stop),) if isinstance(stop, int) else tuple(int(token) for token in stop)
