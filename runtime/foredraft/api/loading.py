"""Engines by name: what users write after ``--model`` and ``--draft``, made ready to run.

Torch is imported only when a model is loaded; the n-gram drafter needs none.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from foredraft.errors import ConfigError, ModelError, extras_named, needs
from foredraft.protocol.ports import Drafter, NewDrafter, Target, TargetCard
from foredraft.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from foredraft.engines.engine_worker import EngineWorker
    from foredraft.engines.torch_model import LoadedModel

DEMO: Final = "demo"
NGRAM: Final = "ngram"


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a model is run. ``device`` as torch names it; ``dtype``: float32, bfloat16 or float16.

    ``quantization``: of a target's weights (``engines.weights.QUANTIZATIONS``); empty: none. ``threads``: torch's,
    for the whole process; 0 leaves them as they are. ``pace``: a hardware profile (a name or a file) whose device
    is emulated by waiting. ``exact``: whether a target's texts are equal to the bit, whatever shares its forwards:
    on, off, or auto, which is on where it costs little (``engines.exact``). ``tensor_parallel``: how many ranks
    share a target, where this process is one that torchrun or ``foredraft serve`` started. ``draft``: options of
    a draft on llama.cpp, each ``NAME=VALUE`` (``engines.llama_options``).
    """

    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 0
    pace: str | Path = ""
    quantization: str = ""
    exact: str = "auto"
    tensor_parallel: int = 1
    draft: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ConfigError(f"threads must be 0 (as they are) or more, not {self.threads!r}")


@extras_named()
def load_target(
    model: str | Path, exits: str | Path | None, options: ModelOptions, *, cache_bytes: int, max_slots: int
) -> tuple[Target, Tokenizer]:
    """The target ``model`` (``demo``, a folder, a hub id or a GGUF file) with its exit heads, and its tokenizer.

    Raises ModelError, ConfigError (MissingExtraError without torch), ProfileError. Takes seconds.
    """
    from foredraft.engines.paced import PacedTarget
    from foredraft.engines.torch_target import TorchTarget
    from foredraft.exits.heads import ExitHeads
    from foredraft.profiles import check_model, load_profile

    profile = load_profile(options.pace, "target") if options.pace else None
    if model == DEMO:
        from foredraft.demo_models import bundled_pair

        pair = bundled_pair()
        model, exits = pair.target, exits or pair.exits
    loaded = _load(model, options)
    if profile is not None:
        check_model(profile, loaded.digest)
    tokenizer = Tokenizer.from_folder(loaded.folder)
    if (file := Path(model)).suffix == ".gguf":
        tokenizer.chat = msgspec.structs.replace(tokenizer.chat, name=file.stem)
    heads = ExitHeads.load(Path(exits), loaded) if exits else None
    target: Target = TorchTarget(loaded, heads, cache_bytes=cache_bytes, max_slots=max_slots, exact=options.exact)
    return (target if profile is None else PacedTarget(target, profile)), tokenizer


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft made ready to run: ``new`` makes the drafter of one text, ``tokenizer`` is its own, if it has one.

    ``worker``: the thread that its drafters share. ``speak``: for a draft with no tokenizer.json, to be called with
    the target's tokenizer; raises ModelError where the draft's vocabulary is another.
    """

    new: NewDrafter
    tokenizer: Tokenizer | None = None
    worker: "EngineWorker | None" = None
    speak: Callable[[Tokenizer], None] | None = None

    async def close(self) -> None:
        """Let the step in flight end, then the thread."""
        if self.worker is not None:
            await self.worker.close()


@extras_named()
def load_draft(draft: str | Path, options: ModelOptions) -> Draft:
    """The draft ``ngram``, ``demo``, or the model in a folder, of a hub id, or in a GGUF file, which llama.cpp runs.

    Its drafters share weights and thread, and with a pace the emulated device.
    Raises ModelError, ConfigError, ProfileError. Takes seconds where it is a model.
    """
    from foredraft.profiles import check_model, load_profile

    profile = load_profile(options.pace, "draft") if options.pace else None
    loaded, digest = _draft(draft, options)
    if profile is None:
        return loaded
    check_model(profile, digest)
    from foredraft.engines.device import Device
    from foredraft.engines.pace import Pace
    from foredraft.engines.paced import PacedDrafter

    device, pace, inner = Device(), Pace(profile, None, "warn"), loaded.new
    return replace(loaded, new=lambda: PacedDrafter(inner(), profile, device=device, pace=pace))


def load_drafter(draft: str | Path, options: ModelOptions) -> tuple[Drafter, Tokenizer | None]:
    """One drafter of ``load_draft``, for one text at a time, and its tokenizer if it has one."""
    loaded = load_draft(draft, options)
    return loaded.new(), loaded.tokenizer


@extras_named()
def load_cloud_drafter(
    draft: str | Path, options: ModelOptions, card: TargetCard, tokenizer: Tokenizer | None = None
) -> NewDrafter:
    """What makes a session's drafter beside a target; the sessions share the weights. ``tokenizer``: the target's.

    Raises ModelError where the tokenizers differ, ConfigError. Takes seconds where it is a model.
    """
    loaded, _ = _draft(draft, replace(options, quantization="", tensor_parallel=1))
    if loaded.speak is not None and tokenizer is not None:
        loaded.speak(tokenizer)
    digest = loaded.new().tokenizer_digest
    if digest not in ("", card.tokenizer_digest):
        raise ModelError(
            f"the tokenizer of the draft {str(draft)!r} ({digest}) is not the target's "
            f"({card.tokenizer_digest}); use a draft model of the same family, or 'ngram'"
        )
    return loaded.new


def _draft(draft: str | Path, options: ModelOptions) -> tuple[Draft, str]:
    """The draft, and the digest of its model; empty for none."""
    if is_gguf(draft):
        return _llama_draft(Path(draft), options)
    if options.draft:
        raise ConfigError(f"--draft-option {options.draft[0]!r} is for GGUF drafts, and {str(draft)!r} is none")
    return (Draft(_new_ngram), "") if draft == NGRAM else _torch_draft(draft, options)


def is_gguf(draft: str | Path) -> bool:
    """Whether a draft is a GGUF file, which llama.cpp runs."""
    return Path(draft).suffix == ".gguf"


def _llama_draft(file: Path, options: ModelOptions) -> tuple[Draft, str]:
    from foredraft.engines.llama_options import LlamaOptions

    needs("llama_cpp")
    wanted = LlamaOptions(threads=options.threads, gpu_layers=0 if options.device == "cpu" else -1)
    wanted = wanted.changed(options.draft)
    from foredraft.engines.engine_worker import EngineWorker
    from foredraft.engines.llama_draft import LlamaDrafter
    from foredraft.engines.llama_model import LlamaModel

    model, worker = LlamaModel(file, wanted), EngineWorker("draft")
    return Draft(partial(LlamaDrafter, model, worker=worker), None, worker, model.speak), model.digest


def _new_ngram() -> Drafter:
    from foredraft.engines.ngram import NgramDrafter

    return NgramDrafter()


def _torch_draft(draft: str | Path, options: ModelOptions) -> tuple[Draft, str]:
    """The draft, and the digest of its model."""
    from foredraft.engines.torch_draft import TorchDrafter
    from foredraft.engines.worker import DeviceWorker

    if draft == DEMO:
        from foredraft.demo_models import bundled_pair

        draft = bundled_pair().draft
    loaded, worker = _load(draft, options), DeviceWorker("draft")
    new = partial(TorchDrafter, loaded, worker=worker)
    return Draft(new, Tokenizer.from_folder(loaded.folder), worker), loaded.digest


def _load(model: str | Path, options: ModelOptions) -> "LoadedModel":
    import torch

    from foredraft.engines.torch_model import load_model

    if options.threads:
        torch.set_num_threads(options.threads)
    return load_model(
        model,
        options.dtype,
        options.device,
        quantization=options.quantization,
        show_progress=sys.stderr.isatty(),
        tensor_parallel=options.tensor_parallel,
    )
