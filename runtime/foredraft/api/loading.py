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

from foredraft.demo_models.pair import FOLDERS, bundled_pair
from foredraft.errors import ConfigError, ModelError, extras_named, needs
from foredraft.protocol.ports import Drafter, NewDrafter, Target, TargetCard
from foredraft.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from foredraft.engines.engine_worker import EngineWorker
    from foredraft.engines.torch_model import LoadedModel
    from foredraft.engines.translating import Speech

DEMO: Final = "demo"
NGRAM: Final = "ngram"
LLAMA_SERVER: Final = "llama-server:"
"""What begins the name of a draft on llama.cpp's own HTTP server; its URL follows."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a model is run. ``device`` as torch names it; ``dtype``: float32, bfloat16 or float16.

    ``quantization``: of a target's weights (``engines.weights.QUANTIZATIONS``); empty: none. ``threads``: torch's,
    for the whole process; 0 leaves them as they are. ``pace``: a hardware profile (a name or a file) whose device
    is emulated by waiting. ``exact``: whether a target's texts are equal to the bit, whatever shares its forwards:
    on, off, or auto, which is on where it costs little (``engines.exact``). ``prefix_cache``: whether a target runs
    beginnings that texts have in common once, and finds them again later. ``tensor_parallel``: how many ranks
    share a target, where this process is one that torchrun or ``foredraft serve`` started. ``draft``: options of
    a draft on llama.cpp, each ``NAME=VALUE`` (``engines.llama_options``). ``translate``: whether a draft may have
    another tokenizer than the target, and is translated by text then.
    """

    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 0
    pace: str | Path = ""
    quantization: str = ""
    exact: str = "auto"
    prefix_cache: bool = True
    tensor_parallel: int = 1
    draft: tuple[str, ...] = ()
    translate: bool = False

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
    if model in FOLDERS:
        pair = bundled_pair(str(model))
        model, exits = pair.target, exits or pair.exits
    loaded = _load(model, options)
    if profile is not None:
        check_model(profile, loaded.digest)
    tokenizer = Tokenizer.from_folder(loaded.folder)
    if (file := Path(model)).suffix == ".gguf":
        tokenizer.chat = msgspec.structs.replace(tokenizer.chat, name=file.stem)
    heads = ExitHeads.load(Path(exits), loaded) if exits else None
    target: Target = TorchTarget(
        loaded,
        heads,
        cache_bytes=cache_bytes,
        max_slots=max_slots,
        exact=options.exact,
        prefix_cache=options.prefix_cache,
    )
    return (target if profile is None else PacedTarget(target, profile)), tokenizer


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft made ready to run: ``new`` makes the drafter of one text, ``tokenizer`` is its own, if it has one.

    ``worker``: the thread that its drafters share. ``speak``: for a draft with no tokenizer.json, to be called with
    the target's tokenizer; raises ModelError where the draft's vocabulary is another. ``speech``: how it reads and
    writes, where it may be translated. ``translated``: whether it is. ``name``: as users write it. ``digest``: of its
    model, if it has one here.
    """

    new: NewDrafter
    tokenizer: Tokenizer | None = None
    worker: "EngineWorker | None" = None
    speak: Callable[[Tokenizer], None] | None = None
    speech: "Speech | None" = None
    translated: bool = False
    name: str = ""
    digest: str = ""

    def speaks(self, digest: str) -> bool:
        """Whether it is known to speak the tokens of the tokenizer with this digest, or any."""
        return self.speak is None and (self.tokenizer is None or self.tokenizer.digest == digest)

    def speaking(self, tokenizer: Tokenizer | None, digest: str, *, translate: bool = False) -> "Draft":
        """The draft for a target with this tokenizer; translated where it has another, and that is wanted.

        ``tokenizer``: None where texts are token ids. Takes a moment. Raises ModelError where the draft has another
        one, and ConfigError where it cannot be translated.
        """
        if self.speaks(digest) or (tokenizer is None and self.speak is not None):
            return self
        try:
            self._compare(tokenizer, digest)
        except ModelError:
            if tokenizer is None or not translate:
                raise
            return self.translating(tokenizer)
        return self

    def _compare(self, tokenizer: Tokenizer | None, digest: str) -> None:
        """Raise ModelError where it does not speak the tokens of a tokenizer, by its vocabulary or its own digest."""
        if self.speak is not None and tokenizer is not None:
            self.speak(tokenizer)
            return
        mine = "" if self.tokenizer is None else self.tokenizer.digest
        raise ModelError(
            f"the tokenizer of the draft {self.name!r} ({mine}) is not the target's ({digest}); "
            "use a draft of the same family, or 'ngram', or --translate this one"
        )

    def translating(self, tokenizer: Tokenizer) -> "Draft":
        """The draft translated for a target with this tokenizer. Raises ConfigError where it cannot be."""
        if self.speech is None:
            raise ConfigError(f"the draft {self.name!r} cannot be translated: that takes a model in this process")
        from foredraft.engines.translating import TranslatingDrafter, Words

        words, inner = Words(tokenizer, self.speech), self.new
        return replace(self, new=lambda: TranslatingDrafter(inner(), words), tokenizer=tokenizer, translated=True)

    async def close(self) -> None:
        """Let the step in flight end, then the thread."""
        if self.worker is not None:
            await self.worker.close()


@extras_named()
def load_draft(draft: str | Path, options: ModelOptions) -> Draft:
    """The draft ``ngram``, ``demo``, or the model in a folder, of a hub id, in a GGUF file, which llama.cpp runs, or
    of a ``llama-server:URL``.

    Its drafters share weights and thread, and with a pace the emulated device.
    Raises ModelError, ConfigError, ProfileError. Takes seconds where it is a model.
    """
    from foredraft.profiles import check_model, load_profile

    profile = load_profile(options.pace, "draft") if options.pace else None
    loaded = _draft(draft, options)
    if profile is None:
        return loaded
    check_model(profile, loaded.digest)
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
    loaded = _draft(draft, replace(options, quantization="", tensor_parallel=1))
    return loaded.speaking(tokenizer, card.tokenizer_digest, translate=options.translate).new


def _draft(draft: str | Path, options: ModelOptions) -> Draft:
    if is_gguf(draft):
        loaded = _llama_draft(Path(draft), options)
    elif str(draft).startswith(LLAMA_SERVER):
        loaded = _server_draft(str(draft), options)
    elif options.draft:
        raise ConfigError(f"--draft-option {options.draft[0]!r} is for drafts on llama.cpp, not for {str(draft)!r}")
    else:
        loaded = Draft(_new_ngram) if draft == NGRAM else _torch_draft(draft, options)
    return replace(loaded, name=str(draft))


def is_gguf(draft: str | Path) -> bool:
    """Whether a draft is a GGUF file, which llama.cpp runs."""
    return Path(draft).suffix == ".gguf"


def _llama_draft(file: Path, options: ModelOptions) -> Draft:
    from foredraft.engines.llama_options import LlamaOptions, changed

    needs("llama_cpp")
    wanted = LlamaOptions(threads=options.threads, gpu_layers=0 if options.device == "cpu" else -1)
    wanted = changed(wanted, options.draft)
    from foredraft.engines.engine_worker import EngineWorker
    from foredraft.engines.llama_draft import LlamaDrafter
    from foredraft.engines.llama_model import LlamaModel

    model, worker = LlamaModel(file, wanted), EngineWorker("draft")
    new = partial(LlamaDrafter, model, worker=worker)
    return Draft(new, None, worker, model.speak, model, digest=model.digest)


def _server_draft(draft: str, options: ModelOptions) -> Draft:
    from foredraft.engines.llama_options import LlamaServerOptions, changed
    from foredraft.engines.llama_server import LlamaServer
    from foredraft.engines.llama_server_draft import LlamaServerDrafter

    wanted = changed(LlamaServerOptions(), options.draft)
    needs("numpy", extra="llama-server")
    server = LlamaServer(draft.removeprefix(LLAMA_SERVER))
    new = partial(LlamaServerDrafter, server, candidates=wanted.candidates, nodes=wanted.nodes)
    return Draft(new, speak=server.speak)


def _new_ngram() -> Drafter:
    from foredraft.engines.ngram import NgramDrafter

    return NgramDrafter()


def _torch_draft(draft: str | Path, options: ModelOptions) -> Draft:
    from foredraft.engines.torch_draft import TorchDrafter
    from foredraft.engines.translating import TokenizerSpeech
    from foredraft.engines.worker import DeviceWorker

    if draft in FOLDERS:
        draft = bundled_pair(str(draft)).draft
    loaded, worker = _load(draft, options), DeviceWorker("draft")
    new = partial(TorchDrafter, loaded, worker=worker)
    tokenizer = Tokenizer.from_folder(loaded.folder)
    return Draft(new, tokenizer, worker, speech=TokenizerSpeech(tokenizer), digest=loaded.digest)


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
