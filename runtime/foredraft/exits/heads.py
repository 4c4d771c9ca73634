"""Exit heads: what the model will probably say, read from a layer in its middle.

A head is the model's own final norm, copied and trained on, an optional low-rank adapter, and the model's own output
layer, shared and frozen. The adapter is linear, as in the tuned lens (Belrose et al., arXiv 2303.08112), adds to what
the norm gives and starts at zero, so an untrained head is the
model's norm and output layer applied early (EE-Tuning, arXiv 2402.00518, initialises its exits so). The heads are
small: d + 2*d*rank numbers each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from foredraft.engines.masks import held_to
from foredraft.engines.noise import Noise, best
from foredraft.engines.torch_model import LoadedModel
from foredraft.errors import ModelError
from foredraft.exits.calibrate import ConfidenceMap
from foredraft.exits.card import ExitCard, read_card, write_atomically, write_card
from foredraft.protocol.sampling import Sampling

WEIGHTS_FILE: Final = "heads.safetensors"
_MERGED_NUMBERS: Final = 1 << 20  # width times vocabulary; up to here a head has an output matrix of its own
_KNOWN_TEMPERATURES: Final = 64  # confidence maps kept ready, over all layers

ToLogits = Callable[[Tensor], Tensor]
"""Hidden states ``[rows, d]`` to logits ``[rows, vocab]``."""


class ExitHead(nn.Module):
    """Norm and adapter of one exit: hidden states ``[rows, d]`` to what the output layer reads, ``[rows, d]``."""

    def __init__(self, norm: nn.Module, rank: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        weight = getattr(norm, "weight", None)
        if not isinstance(weight, Tensor) or getattr(norm, "bias", None) is not None:
            raise ModelError(f"exit heads need a model whose final norm is an RMS norm, not {norm}")
        self.eps = float(getattr(norm, "variance_epsilon", getattr(norm, "eps", None) or 1e-6))
        self.weight = nn.Parameter(weight.detach().to("cpu", torch.float32).clone())
        size = self.weight.shape[0]
        down = torch.randn(rank, size, generator=generator) * size**-0.5
        self.down = nn.Parameter(down) if rank else None
        self.up = nn.Parameter(torch.zeros(size, rank)) if rank else None

    def forward(self, hidden: Tensor) -> Tensor:
        normed = functional.rms_norm(hidden, self.weight.shape, self.weight, self.eps)
        if self.down is None or self.up is None:
            return normed
        return normed + functional.linear(functional.linear(normed, self.down), self.up)


def merged(head: ExitHead, output: Tensor) -> ToLogits:
    """``head`` and the output layer (``[vocab, d]``) in four operations: one matrix, the length divided out before.

    For small models on a CPU, where what counts is how many operations there are.
    """
    weight, width = head.weight.detach(), head.weight.shape[0]
    matrix = torch.diag(weight * width**0.5)
    if head.down is not None and head.up is not None:
        matrix = matrix + (head.up @ head.down).detach() @ matrix
    columns = (output.detach() @ matrix).t().contiguous()
    least = torch.tensor((width * head.eps) ** 0.5)

    def to_logits(hidden: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        return torch.mm(hidden / torch.hypot(length, least), columns)

    return to_logits


def _is_small(output: nn.Module) -> TypeGuard[nn.Linear]:
    return (
        isinstance(output, nn.Linear)
        and type(output.weight.data) is Tensor  # not a rank's share
        and output.bias is None
        and output.weight.numel() <= _MERGED_NUMBERS
        and output.weight.device.type == "cpu"
        and output.weight.dtype is torch.float32
    )


def chained(head: ExitHead, output: nn.Module) -> ToLogits:
    """``head`` and then the output layer."""

    def to_logits(hidden: Tensor) -> Tensor:
        logits: Tensor = output(head(hidden))
        return logits

    return to_logits


class ExitHeads:
    """The heads of one model, ready to read: used by the target engine between the segments of a pass.

    ``layers`` counts the layers that have run when a head reads, shallowest first.
    """

    def __init__(self, model: LoadedModel, heads: Mapping[int, ExitHead], card: ExitCard) -> None:
        self.card = card
        self.layers: tuple[int, ...] = tuple(heads)
        frozen = {n: head.to(model.device, model.dtype).requires_grad_(False) for n, head in heads.items()}
        output: nn.Module = model.lm_head
        self._to_logits: dict[int, ToLogits] = {
            layer: merged(head, output.weight) if _is_small(output) else chained(head, output)
            for layer, head in frozen.items()
        }
        self._device = model.device
        self._maps: dict[tuple[int, float], ConfidenceMap] = {}

    @classmethod
    def load(cls, folder: Path, model: LoadedModel) -> ExitHeads:
        """The heads in ``folder``, on the device and in the type of ``model``.

        Raises:
            ModelError: files are missing or broken, or the heads belong to another model.
        """
        card = read_card(folder)
        check_owner(card, model, folder)
        weights = _read_weights(folder, card)
        heads = {layer: ExitHead(model.norm, card.rank) for layer in card.layers}
        for layer, head in heads.items():
            own = {key.split(".", 1)[1]: value for key, value in weights.items() if key.startswith(f"{layer}.")}
            try:
                head.load_state_dict(own)
            except RuntimeError as error:
                raise ModelError(f"{folder / WEIGHTS_FILE} does not hold what its card says: {error}") from error
        return cls(model, heads, card)

    def read(
        self,
        layer: int,
        hidden: Tensor,
        positions: Tensor,
        sampling: Sampling,
        noise: Noise | None = None,
        allowed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What comes next, as seen after ``layer`` layers.

        ``hidden``: ``[rows, d]``, before any norm. ``positions``: ``[rows]``, the position of the token that each
        row predicts. ``noise``: as for ``noise.best``, to share it with other readings of the pass. ``allowed``:
        ``[rows, vocab]``, the tokens that each row may say, None for all. Returns tokens
        ``[rows]`` int64, sampled with the noise that the whole model will use, and the calibrated probability
        ``[rows]`` that the whole model's token is the same.
        """
        logits = held_to(self._to_logits[layer](hidden), allowed)
        found = best(logits, positions, sampling, noise, count=2)
        return found.tokens[:, 0], self._map(layer, sampling.temperature)(found.values)

    def _map(self, layer: int, temperature: float) -> ConfidenceMap:
        """The layer's map at this temperature, kept for the next call."""
        found = self._maps.get((layer, temperature))
        if found is None:
            if len(self._maps) >= _KNOWN_TEMPERATURES:
                self._maps.clear()
            calibrations = self.card.calibration[self.card.layers.index(layer)]
            found = ConfidenceMap.between(calibrations, temperature, self._device)
            self._maps[layer, temperature] = found
        return found


def check_owner(card: ExitCard, model: LoadedModel, folder: Path) -> None:
    """Refuse heads that were made for another model."""
    if card.model_digest != model.digest:
        raise ModelError(
            f"the exits in {folder} belong to the model {card.model} with digest {card.model_digest}, "
            f"not to the one with digest {model.digest}; train exits for this model, or leave them out"
        )
    depth = len(model.layers)
    if not all(0 < layer < depth for layer in card.layers):
        raise ModelError(f"the exits in {folder} sit after layers {card.layers}; the model has {depth}")


def save_heads(folder: Path, heads: Mapping[int, ExitHead], card: ExitCard) -> None:
    """Write weights (16 bit) and card; the card comes last, so a folder with a card is complete."""
    write_atomically(folder / WEIGHTS_FILE, _pack(heads))
    write_card(folder, card)


def _pack(heads: Mapping[int, ExitHead]) -> bytes:
    """The heads' weights as a safetensors file in 16 bit."""
    weights = {
        f"{layer}.{name}": value.detach().to("cpu", torch.float16).contiguous()
        for layer, head in heads.items()
        for name, value in head.state_dict().items()
    }
    return save(weights)


def weights_digest(heads: Mapping[int, ExitHead]) -> str:
    """SHA-256 of the file that holds these heads."""
    return hashlib.sha256(_pack(heads)).hexdigest()


def round_heads(heads: Mapping[int, ExitHead]) -> None:
    """Round the weights to what the file will hold, so that calibration sees what will run."""
    with torch.no_grad():
        for head in heads.values():
            for value in head.parameters():
                value.copy_(value.to(torch.float16).to(value.dtype))


def _read_weights(folder: Path, card: ExitCard) -> dict[str, Tensor]:
    path = folder / WEIGHTS_FILE
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != card.weights_digest:
            raise ModelError(f"{path} is damaged: its digest is not the one in the card; train the exits again")
        weights = load(data)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read the exit heads in {path}: {error}") from error
    return {name: value.to(torch.float32) for name, value in weights.items()}
