"""One pass of the target on its device: segments of layers, and the exits between them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from foredraft.engines.flat_cache import FlatCache
from foredraft.engines.masks import Masks
from foredraft.engines.noise import position_noise, sample
from foredraft.engines.torch_model import LoadedModel, run_range
from foredraft.protocol.ports import Pass, Prediction
from foredraft.protocol.sampling import Sampling


class ExitReader(Protocol):
    """The exit heads of a model. ``layers``: how many layers have run before each head, shallowest first."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Where the heads sit."""

    def read(
        self, layer: int, hidden: Tensor, positions: Tensor, sampling: Sampling, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens and confidences, both ``[rows]``, from hidden states ``[rows, width]``.

        ``positions``: ``[rows]``, the position in the text of the token that each row predicts. ``noise``: the
        pass's own, see ``noise.position_noise``.
        """


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pass writes: below the first ``start`` rows of ``cache``, which may grow to ``rows``."""

    cache: FlatCache
    start: int
    rows: int


class TargetPass:
    """A pass that has been asked for. ``cancelled`` may be set from any thread.

    ``depths[i]``: how far node i lies below the tip.
    """

    def __init__(
        self,
        model: LoadedModel,
        exits: ExitReader | None,
        batch: Pass,
        sampling: Sampling,
        post: Callable[[Prediction], None],
    ) -> None:
        self.cancelled = False
        self.depths: list[int] = []
        for parent in batch.parents:
            self.depths.append(1 if parent < 0 else self.depths[parent] + 1)
        self._model, self._exits, self._batch, self._sampling, self._post = model, exits, batch, sampling, post

    def run(self, place: Place) -> Prediction | None:
        """Run it; None when it was cancelled on the way. Called on the device's thread."""
        model, batch = self._model, self._batch
        tip = place.start + len(batch.trunk) - 1
        positions = [tip + depth for depth in self.depths]
        masks = self._masks(place.start, tip + 1, positions)
        end = tip + 1 + len(batch.tokens)
        place.cache.prepare(place.rows, place.start)
        stores = place.cache.stores(place.start, end)
        if self._is_chain():
            rope = model.rotary.span(place.start, end)
        else:
            rope = model.rotary.at([*range(place.start, tip + 1), *positions])
        predicted = torch.tensor([tip, *positions], device=model.device) + 1
        hidden = model.embed(torch.tensor([batch.trunk + batch.tokens], device=model.device))
        noise = position_noise(predicted, model.vocab_size, self._sampling)
        # Half the width is plenty for a hint, and adding it to logits takes a sixth of the time.
        exit_noise = noise.to(torch.float32) if noise is not None and batch.exits else None
        done, unread = 0, None
        for layer in sorted({*batch.exits, len(model.layers)}):
            hidden = run_range(model, hidden, rope, masks, stores, range(done, layer))
            done = layer
            if unread is not None:
                unread()
            if self.cancelled:
                return None
            if layer in batch.exits:
                unread = self._read_exit(layer, hidden[0, len(batch.trunk) - 1 :], predicted, exit_noise)
        logits = model.logits(hidden[0, len(batch.trunk) - 1 :])
        tokens = sample(logits, predicted, self._sampling, noise).tolist()
        return Prediction(done, tuple(tokens), (1.0,) * len(tokens))

    def _is_chain(self) -> bool:
        return self._batch.parents == tuple(range(-1, len(self._batch.parents) - 1))

    def _masks(self, start: int, base: int, positions: list[int]) -> Masks:
        if self._is_chain():
            return self._model.masks.chain(start, base + len(positions))
        visible: list[list[int]] = []
        for node, parent in enumerate(self._batch.parents):
            visible.append([*(visible[parent] if parent >= 0 else ()), node])
        return self._model.masks.tree(start, base, visible, positions)

    def _read_exit(
        self, layer: int, hidden: Tensor, predicted: Tensor, noise: Tensor | None
    ) -> Callable[[], None] | None:
        """Read the head and post what it says; on an accelerator, give what posts it once the copy has arrived.

        Waiting for the copy at once would leave the accelerator idle until the next segment is submitted.
        """
        if self._exits is None:
            raise ValueError("exits without heads")
        tokens, confidence = self._exits.read(layer, hidden, predicted, self._sampling, noise)

        def post() -> None:
            self._post(Prediction(layer, tuple(tokens.tolist()), tuple(confidence.tolist())))

        if hidden.device.type != "cuda":
            post()
            return None
        tokens, confidence = (part.to("cpu", non_blocking=True) for part in (tokens, confidence))
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()

        def post_on_arrival() -> None:
            arrived.synchronize()
            post()

        return post_on_arrival


def run_trunk(model: LoadedModel, place: Place, tokens: tuple[int, ...]) -> None:
    """Put committed ``tokens`` into the cache. Called on the device's thread."""
    end = place.start + len(tokens)
    place.cache.prepare(place.rows, place.start)
    run_range(
        model,
        model.embed(torch.tensor([tokens], device=model.device)),
        model.rotary.span(place.start, end),
        model.masks.chain(place.start, end),
        place.cache.stores(place.start, end),
        range(len(model.layers)),
    )
