"""What a measurement is asked for, and the engine that it measures."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from foredraft.api import loading
from foredraft.api.loading import DEMO, NGRAM, ModelOptions
from foredraft.errors import ConfigError
from foredraft.protocol.ports import Drafter, Target

if TYPE_CHECKING:
    from foredraft.engines.torch_model import LoadedModel

_CACHE_BYTES: Final = 2 << 30
_CACHE_SHARE: Final = 0.4
"""Of an accelerator's free memory; the model and what batches need come out of the rest."""

_NGRAM_VOCABULARY, _NGRAM_CONTEXT = 32000, 2048
_EMULATED: Final = "an emulated device cannot be measured: leave the pace out"
Role = Literal["draft", "target"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure. ``model``: as ``serve`` takes it; ``shape``: a model of random weights in its place.

    Empty ``contexts`` and ``tokens`` are chosen by the model. ``batches`` above 1 are measured with
    so many sessions in one forward.
    """

    name: str
    role: Role = "target"
    model: str = DEMO
    shape: str = ""
    exits: Path | None = None
    exit_layers: tuple[int, ...] = ()
    options: ModelOptions = ModelOptions()  # noqa: RUF009 (frozen)
    contexts: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    batches: tuple[int, ...] = (1,)
    repeats: int = 25
    machine: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """The model that was loaded."""

    name: str
    digest: str
    layers: int
    vocab_size: int
    context: int


def _named(model: "LoadedModel", wanted: Wanted) -> Named:
    name = "the bundled model" if not wanted.shape and wanted.model == DEMO else model.folder.name
    return Named(
        f"{wanted.shape}, random weights" if wanted.shape else name,
        model.digest,
        len(model.layers),
        model.vocab_size,
        model.context,
    )


def load_target(wanted: Wanted) -> tuple[Target, Named]:
    """The target, and what it is called. Raises ModelError, ConfigError."""
    from foredraft.engines.torch_target import TorchTarget

    if not wanted.shape:
        target, _ = loading.load_target(
            wanted.model, wanted.exits, wanted.options, cache_bytes=_cache_bytes(wanted.options), max_slots=64
        )
        if not isinstance(target, TorchTarget):
            raise ConfigError(_EMULATED)
        return target, _named(target.model, wanted)
    from foredraft.calibration.shapes import random_exits, random_model

    _set_threads(wanted.options)
    model = random_model(wanted.shape, wanted.options.dtype, wanted.options.device)
    exits = random_exits(model, wanted.exit_layers)
    return TorchTarget(model, exits, cache_bytes=_cache_bytes(wanted.options)), _named(model, wanted)


def load_drafter(wanted: Wanted) -> tuple[Drafter, Named]:
    """The drafter, and what it is called. Raises ModelError, ConfigError."""
    if wanted.options.draft and wanted.shape:
        raise ConfigError(f"--draft-option {wanted.options.draft[0]!r} is for GGUF drafts, not for a --shape")
    if not wanted.shape and wanted.model == NGRAM:
        drafter, _ = loading.load_drafter(NGRAM, wanted.options)
        return drafter, Named("n-gram lookup", "", 1, _NGRAM_VOCABULARY, _NGRAM_CONTEXT)
    if not wanted.shape and loading.is_gguf(wanted.model):
        return _llama_drafter(wanted)
    if not wanted.shape and wanted.model.startswith(loading.LLAMA_SERVER):
        return _server_drafter(wanted)
    from foredraft.engines.torch_draft import TorchDrafter

    if not wanted.shape:
        drafter, _ = loading.load_drafter(wanted.model, wanted.options)
        if not isinstance(drafter, TorchDrafter):
            raise ConfigError(_EMULATED)
        return drafter, _named(drafter.model, wanted)
    from foredraft.calibration.shapes import random_model

    _set_threads(wanted.options)
    model = random_model(wanted.shape, wanted.options.dtype, wanted.options.device)
    return TorchDrafter(model), _named(model, wanted)


def _llama_drafter(wanted: Wanted) -> tuple[Drafter, Named]:
    drafter, _ = loading.load_drafter(wanted.model, wanted.options)
    from foredraft.engines.llama_draft import LlamaDrafter

    if not isinstance(drafter, LlamaDrafter):
        raise ConfigError(_EMULATED)
    model = drafter.model
    return drafter, Named(model.file.stem, model.digest, model.layers, model.vocab_size, model.context)


def _server_drafter(wanted: Wanted) -> tuple[Drafter, Named]:
    drafter, _ = loading.load_drafter(wanted.model, wanted.options)
    from foredraft.engines.llama_server_draft import LlamaServerDrafter

    if not isinstance(drafter, LlamaServerDrafter):
        raise ConfigError(_EMULATED)
    server = drafter.server
    return drafter, Named(Path(server.model).stem or server.url, "", 1, server.vocab_size, server.context)


def _cache_bytes(options: ModelOptions) -> int:
    """What the caches of all contexts may take. Raises ConfigError for a device that is not there."""
    if not options.device.startswith("cuda"):
        return _CACHE_BYTES
    import torch

    from foredraft.engines.torch_model import device_named

    return max(_CACHE_BYTES, int(_CACHE_SHARE * torch.cuda.mem_get_info(device_named(options.device))[0]))


def _set_threads(options: ModelOptions) -> None:
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
