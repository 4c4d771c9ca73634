"""Engines by name: what users write after ``--model`` and ``--draft``, made ready to run.

Torch is imported only when a model is loaded; the n-gram drafter needs none.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from foredraft.core.colocated import NewDrafter
from foredraft.core.ports import Drafter, Target, TargetCard
from foredraft.errors import ConfigError, ModelError
from foredraft.text import Tokenizer

if TYPE_CHECKING:
    from foredraft.engines.torch_draft import TorchDrafter
    from foredraft.engines.torch_model import LoadedModel

DEMO: Final = "demo"
NGRAM: Final = "ngram"


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a model is run. ``device`` as torch names it; ``dtype``: float32, bfloat16 or float16.

    ``quantization``: of a target's weights (``engines.weights.QUANTIZATIONS``); empty: none. ``threads``: torch's,
    for the whole process; 0 leaves them as they are. ``pace``: a hardware profile (a name or a file) whose device
    is emulated by waiting. ``exact``: whether a target's texts are equal to the bit, whatever shares its forwards:
    on, off, or auto, which is on where it costs little (``engines.exact``).
    """

    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 0
    pace: str | Path = ""
    quantization: str = ""
    exact: str = "auto"

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ConfigError(f"threads must be 0 (as they are) or more, not {self.threads!r}")


def load_target(
    model: str | Path, exits: str | Path | None, options: ModelOptions, *, cache_bytes: int, max_seats: int
) -> tuple[Target, Tokenizer]:
    """The target ``model`` (``demo``, a folder, a hub id or a GGUF file) with its exit heads, and its tokenizer.

    Raises ModelError, ConfigError, ProfileError. Takes seconds.
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
    heads = ExitHeads.load(Path(exits), loaded) if exits else None
    target: Target = TorchTarget(loaded, heads, cache_bytes=cache_bytes, max_seats=max_seats, exact=options.exact)
    return (target if profile is None else PacedTarget(target, profile)), tokenizer


def load_drafter(draft: str | Path, options: ModelOptions) -> tuple[Drafter, Tokenizer | None]:
    """The drafter ``draft`` (``ngram``, ``demo``, a folder, a hub id or a GGUF file), and its tokenizer if it has one.

    Raises ModelError, ConfigError, ProfileError. Takes seconds where it is a model.
    """
    from foredraft.profiles import check_model, load_profile

    profile = load_profile(options.pace, "draft") if options.pace else None
    if draft == NGRAM:
        drafter: Drafter
        tokenizer: Tokenizer | None
        (drafter, tokenizer), digest = _ngram(), ""
    else:
        drafter, tokenizer = _torch_drafter(draft, options)
        digest = drafter.model.digest
    if profile is None:
        return drafter, tokenizer
    check_model(profile, digest)
    from foredraft.engines.paced import PacedDrafter

    return PacedDrafter(drafter, profile), tokenizer


def load_cloud_drafter(draft: str | Path, options: ModelOptions, card: TargetCard) -> NewDrafter:
    """What makes a session's drafter beside a target; the sessions share the weights.

    Raises ModelError where the tokenizers differ, ConfigError. Takes seconds where it is a model.
    """
    if draft == NGRAM:
        return lambda: _ngram()[0]
    from foredraft.engines.torch_draft import TorchDrafter

    first, _ = _torch_drafter(draft, replace(options, quantization=""))
    if first.tokenizer_digest != card.tokenizer_digest:
        raise ModelError(
            f"the tokenizer of the draft {str(draft)!r} ({first.tokenizer_digest}) is not the target's "
            f"({card.tokenizer_digest}); use a draft model of the same family, or 'ngram'"
        )
    return lambda: TorchDrafter(first.model)


def _ngram() -> tuple[Drafter, None]:
    from foredraft.engines.ngram import NgramDrafter

    return NgramDrafter(), None


def _torch_drafter(draft: str | Path, options: ModelOptions) -> "tuple[TorchDrafter, Tokenizer]":
    from foredraft.engines.torch_draft import TorchDrafter

    if draft == DEMO:
        from foredraft.demo_models import bundled_pair

        draft = bundled_pair().draft
    loaded = _load(draft, options)
    return TorchDrafter(loaded), Tokenizer.from_folder(loaded.folder)


def _load(model: str | Path, options: ModelOptions) -> "LoadedModel":
    import torch

    from foredraft.engines.torch_model import load_model

    if options.threads:
        torch.set_num_threads(options.threads)
    return load_model(
        model, options.dtype, options.device, quantization=options.quantization, show_progress=sys.stderr.isatty()
    )
