"""A model's configuration and weights off the disk, as people have them: safetensors, GGUF, quantised or not."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from foredraft.engines import model_files
from foredraft.engines.ranks import Ranks
from foredraft.engines.worker import first_line
from foredraft.errors import ConfigError, ModelError
from foredraft.protocol.messages import MAX_TOKEN_ID

log = logging.getLogger(__name__)

GROUP = 32
"""Weights that share a scale in 4 bits."""

_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
_CHUNKED = "chunked_attention"


@dataclass(frozen=True, slots=True)
class Stored:
    """A model on disk. ``folder`` has its configuration and tokenizer; ``gguf`` its weights, where it is one file."""

    folder: Path
    gguf: Path | None = None

    @property
    def digest(self) -> str:
        """Names the weights as they are stored."""
        return model_files.model_digest(self.folder) if self.gguf is None else model_files.file_digest(self.gguf)


def stored(model: str | Path) -> Stored:
    """Where ``model`` lies: a folder, a hub id, or a GGUF file. Raises ModelError."""
    file = Path(model)
    if file.suffix != ".gguf":
        return Stored(model_files.locate(model))
    if not file.is_file():
        raise ModelError(f"no file {str(file)!r}")
    return Stored(_unpacked(file), file)


def _unpacked(file: Path) -> Path:
    """A folder with the configuration and the tokenizer of a GGUF file, kept for the next time."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "foredraft" / "gguf" / model_files.file_digest(file)
    if not (folder / "tokenizer.json").is_file():
        from transformers import AutoConfig, AutoTokenizer, GenerationConfig

        source: Mapping[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
        try:
            config = AutoConfig.from_pretrained(**source)
            config.save_pretrained(folder)
            GenerationConfig.from_model_config(config).save_pretrained(folder)
        except ImportError as error:
            raise ConfigError(_needs("a GGUF file", "gguf and accelerate", "gguf-target")) from error
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"{str(file)!r} cannot be read as GGUF: {first_line(error)}") from error
        try:
            AutoTokenizer.from_pretrained(**source, config=config).save_pretrained(folder)
        except Exception as error:  # whatever is missing, each conversion fails in its own way
            reason = first_line(error)
            raise ModelError(
                f"{str(file)!r} has no tokenizer that can be read ({reason}); use a file that has"
            ) from error
    return folder


def read_config(where: Stored) -> Any:
    """The configuration. Raises ModelError for a model that cannot be served, as far as this tells."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(where.folder)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise ModelError(f"the configuration in {str(where.folder)!r} cannot be read: {error}") from error
    _refuse_unsuitable(where.folder, config)
    return config


def has_eyes(config: Any) -> bool:
    """Whether a model of this configuration sees images."""
    return hasattr(config, "vision_config") and hasattr(config, "image_token_id")


def _refuse_unsuitable(folder: Path, config: Any) -> None:
    """Raise ModelError for what a check over a few tokens cannot see."""
    name = repr(str(folder))
    config = config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {str(part.get("rope_type", "default")) for part in (rope, *rope.values()) if isinstance(part, dict)}
    for kind in kinds & set(_LENGTH_DEPENDENT_ROPE):
        raise ModelError(
            f"{name} has {kind!r} rotary positions, which change with the length of the text and so cannot be "
            "cached; set rope_type to 'default', 'linear', 'llama3' or 'yarn' in config.json"
        )
    if _CHUNKED in (getattr(config, "layer_types", None) or ()):
        raise ModelError(f"{name} has layers of chunked attention, which cannot be run here; take another model")
    vocab_size = getattr(config, "vocab_size", 0)
    if not 0 < vocab_size <= MAX_TOKEN_ID + 1:
        raise ModelError(f"{name} has a vocabulary of {vocab_size}; the protocol's are 1 to {MAX_TOKEN_ID + 1}")


def read_weights(
    where: Stored, config: Any, dtype: torch.dtype, device: torch.device, quantization: str, show_progress: bool
) -> Any:
    """The transformers module, on its device, frozen. Raises ModelError, ConfigError."""
    settings: dict[str, Any] = {}
    if quantization:
        settings = {"quantization_config": _quantization(quantization, dtype, device), "device_map": {"": device}}
    return _read(where, config, dtype, device, show_progress, settings)


def read_share(where: Stored, config: Any, dtype: torch.dtype, ranks: Ranks, quantization: str) -> Any:
    """What this rank has of the module, on its device, frozen. Raises ModelError, ConfigError."""
    from transformers.distributed import DistributedConfig

    name = repr(str(where.gguf or where.folder))
    if has_eyes(config):
        raise ConfigError(f"{name} sees images, which ranks cannot share: leave --tensor-parallel out")
    if quantization:
        raise ConfigError(f"quantization {quantization!r} cannot be shared among ranks; leave one of the two out")
    if not getattr(config, "base_model_tp_plan", None):
        raise ConfigError(f"{name} is of the {config.model_type!r} family, which has no tensor-parallel plan")
    for heads in ("num_attention_heads", "num_key_value_heads"):
        count = getattr(config, heads, None) or 0
        if count % ranks.count:
            raise ConfigError(
                f"{name} has {count} {heads.removeprefix('num_').replace('_', ' ')}, which {ranks.count} ranks cannot "
                f"share evenly: take a --tensor-parallel that divides {count}"
            )
    settings = {"distributed_config": DistributedConfig(tp_size=ranks.count)}
    return _read(where, config, dtype, ranks.device, False, settings)


def _read(
    where: Stored,
    config: Any,
    dtype: torch.dtype,
    device: torch.device,
    show_progress: bool,
    more: Mapping[str, Any],
) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    settings: dict[str, Any] = {"dtype": dtype, "config": config, "output_loading_info": True, **more}
    if where.gguf is None:
        model_files.weight_files(where.folder)
        settings |= {"pretrained_model_name_or_path": where.folder, "use_safetensors": True}
    else:
        log.warning("%s is dequantised: its weights run as %s", where.gguf, str(dtype).removeprefix("torch."))
        settings |= {"pretrained_model_name_or_path": where.gguf.parent, "gguf_file": where.gguf.name}
    name = str(where.gguf or where.folder)
    try:
        with _progress(show_progress):
            kind = AutoModelForImageTextToText if has_eyes(config) else AutoModelForCausalLM
            module, report = kind.from_pretrained(**settings)
        missing = sorted(report["missing_keys"])
        module = module if "device_map" in more else module.to(device)
    except torch.OutOfMemoryError as error:
        raise ConfigError(_no_room(name, device, first_line(error))) from error
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"the weights in {name!r} cannot be loaded: {error}") from error
    if missing:  # transformers would run with random numbers in their place
        raise ModelError(f"the weights in {name!r} lack {len(missing)} tensors, {missing[0]!r} first")
    return module.eval().requires_grad_(False)


def _no_room(name: str, device: torch.device, reason: str) -> str:
    return (
        f"the weights of {name!r} do not fit into the memory of {device}: {reason}; "
        "take --dtype bfloat16, --quantization int8, or a smaller model"
    )


@contextmanager
def _progress(show: bool) -> Iterator[None]:
    """transformers' own bars, or none: whoever loads a model has an output of its own."""
    from transformers.utils import logging as their_logging

    shown = their_logging.is_progress_bar_enabled()
    (their_logging.enable_progress_bar if show else their_logging.disable_progress_bar)()
    try:
        yield
    finally:
        (their_logging.enable_progress_bar if shown else their_logging.disable_progress_bar)()


def _int8(dtype: torch.dtype, device: torch.device) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig(version=2))


def _int4(dtype: torch.dtype, device: torch.device) -> Any:
    from torchao.quantization import Int4WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup
    from transformers import TorchAoConfig

    if device.type == "cuda" and dtype == torch.bfloat16:  # what there is a kernel for
        return TorchAoConfig(Int4WeightOnlyConfig(group_size=GROUP, int4_packing_format="tile_packed_to_4d"))
    four_bits = torch.int4  # type: ignore[attr-defined]
    return TorchAoConfig(IntxWeightOnlyConfig(weight_dtype=four_bits, granularity=PerGroup(GROUP)))


def _bitsandbytes_int8(dtype: torch.dtype, device: torch.device) -> Any:
    import bitsandbytes  # noqa: F401
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True)


def _bitsandbytes_nf4(dtype: torch.dtype, device: torch.device) -> Any:
    import bitsandbytes  # noqa: F401
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


QUANTIZATIONS: Mapping[str, tuple[Callable[[torch.dtype, torch.device], Any], str]] = {
    "int8": (_int8, "torchao"),
    "int4": (_int4, "torchao"),
    "bnb-int8": (_bitsandbytes_int8, "bitsandbytes"),
    "bnb-nf4": (_bitsandbytes_nf4, "bitsandbytes"),
}
"""Of weights alone; and the package that each needs."""


def _quantization(name: str, dtype: torch.dtype, device: torch.device) -> Any:
    if name not in QUANTIZATIONS:
        raise ConfigError(f"unknown quantization {name!r}; known: {', '.join(QUANTIZATIONS)}")
    make, package = QUANTIZATIONS[name]
    try:
        return make(dtype, device)
    except ImportError as error:
        raise ConfigError(_needs(f"quantization {name!r}", package, "quantization")) from error


def _needs(what: str, packages: str, extra: str) -> str:
    return f"{what} needs {packages}, which is not installed: pip install 'foredraft[{extra}]'"
