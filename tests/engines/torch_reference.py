"""What the torch target is compared with: one run over the whole text per token, and plain exits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from engines.tiny_models import FAMILIES, VOCABULARY
from foredraft.engines.masks import held_to
from foredraft.engines.noise import Noise, sample
from foredraft.engines.torch_model import LoadedModel, run_layers
from foredraft.protocol.ports import Pass, Prediction, Slot
from foredraft.protocol.sampling import Sampling

GREEDY = Sampling()
WARM = Sampling(temperature=0.8, top_k=50, top_p=0.95, seed=11)
WINDOWS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in FAMILIES},
    "mistral window": ("mistral", {"sliding_window": 7}),
    "qwen2 window": ("qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}),
}


class PlainHeads:
    """Exits that apply the model's own norm and output layer early."""

    layers = (1, 3)

    def __init__(self, model: LoadedModel) -> None:
        self._model = model

    def read(
        self,
        layer: int,
        hidden: Tensor,
        positions: Tensor,
        sampling: Sampling,
        noise: Noise | None = None,
        allowed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        logits = held_to(self._model.logits(hidden), allowed)
        return sample(logits, positions, sampling, noise), logits.softmax(-1).amax(-1)


def prompt_of(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()


def next_token(model: LoadedModel, text: Sequence[int], sampling: Sampling, layer: int = 4) -> int:
    """What one run over the whole text, without a cache, says comes next."""
    hidden = run_layers(model, torch.tensor([text]), {layer})[layer][0, -1:]
    return int(sample(model.logits(hidden), torch.tensor([len(text)]), sampling))


def text_alone(model: LoadedModel, prompt: Sequence[int], count: int, sampling: Sampling) -> list[int]:
    """The reference text, one whole run per token."""
    text = list(prompt)
    for _ in range(count):
        text.append(next_token(model, text, sampling))
    return text[len(prompt) :]


def ignore(prediction: Prediction) -> None:
    """An exit that nobody listens to."""


async def decode(slot: Slot, prompt: Sequence[int], count: int) -> list[int]:
    """``count`` tokens, one per pass."""
    text = list(prompt)
    if len(text) - 1 > slot.cached:
        await slot.prefill(text[slot.cached : -1])
    for _ in range(count):
        verdict = await slot.verify(Pass(tuple(text[slot.cached :])), ignore)
        text.append(verdict.prediction.tokens[0])
    return text[len(prompt) :]
