"""Trained heads against the whole model on held-out text: how far apart, how often the same, how sure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from foredraft.engines.noise import Noise, best, sample
from foredraft.engines.torch_model import LoadedModel, run_layers
from foredraft.exits.calibrate import TEMPERATURES, ConfidenceMap, fit, report
from foredraft.exits.card import Calibration, Distance, LayerReport
from foredraft.exits.heads import ExitHead
from foredraft.protocol.sampling import Sampling

_LOGITS_AT_ONCE: Final = 1 << 22


States = Callable[[Tensor, Sequence[int]], tuple[dict[int, Tensor], Tensor]]
"""Rows of ids and layers to hidden states ``[rows, d]`` after each layer, and what the output layer reads."""


@dataclass(frozen=True, slots=True)
class Readable:
    """What heads need of the model that they are for: its name and depth, its last parts, and its hidden states."""

    name: str
    digest: str
    depth: int
    device: torch.device
    dtype: torch.dtype
    vocab_size: int
    norm: nn.Module
    lm_head: nn.Module
    states: States


def readable(model: LoadedModel) -> Readable:
    """A model of text, read at every token."""
    return Readable(
        name=model.folder.name,
        digest=model.digest,
        depth=len(model.layers),
        device=model.device,
        dtype=model.dtype,
        vocab_size=model.vocab_size,
        norm=model.norm,
        lm_head=model.lm_head,
        states=partial(layer_states, model),
    )


@dataclass(frozen=True, slots=True)
class Judgement:
    """What held-out text says; ``calibration`` goes by layer, then temperature."""

    distance: tuple[Distance, ...]
    calibration: tuple[tuple[Calibration, ...], ...]
    report: tuple[LayerReport, ...]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Logits ``[rows, vocab]`` of the same held-out tokens: the whole model's, and each layer's."""

    first: int
    whole: Tensor
    trained: dict[int, Tensor]
    untrained: dict[int, Tensor]


def judge(
    model: Readable,
    heads: Mapping[int, ExitHead],
    held_out: Tensor,
    batch: int,
    seed: int,
    on_progress: Callable[[int, int], None],
) -> Judgement:
    """Judge ``heads`` on windows ``[count, length]``: every other one fits the confidence, the rest reports.

    ``on_progress`` is called with windows done and in all.
    """
    far: dict[int, list[tuple[float, float, int]]] = defaultdict(list)
    # Made once and filled: small results between the large ones that come and go would keep the heap from shrinking.
    kinds = [(layer, temperature) for layer in heads for temperature in TEMPERATURES]
    seen = {kind: torch.empty(held_out.numel(), 2, dtype=torch.float64) for kind in kinds}
    right = {kind: torch.empty(held_out.numel(), dtype=torch.float64) for kind in kinds}
    for rows in _rows(model, heads, held_out, batch, on_progress):
        for layer, logits in rows.trained.items():
            before, after = (divergence(rows.whole, own) for own in (rows.untrained[layer], logits))
            far[layer].append((float(before.sum()), float(after.sum()), len(logits)))
        part = slice(rows.first, rows.first + len(rows.whole))
        for layer, temperature, values, hit in _compare(rows, seed):
            seen[layer, temperature][part] = values
            right[layer, temperature][part] = hit
    fitting = torch.arange(held_out.numel()) // held_out.shape[1] % 2 == 0
    calibration: dict[int, list[Calibration]] = defaultdict(list)
    reports = []
    for layer, temperature in sorted(seen):
        values, hit = seen[layer, temperature], right[layer, temperature]
        fitted = fit(values[fitting, 0] - values[fitting, 1], hit[fitting], temperature)
        calibration[layer].append(fitted)
        confidence = ConfidenceMap.between([fitted], temperature)(values[~fitting])
        reports.append(report(layer, temperature, confidence, hit[~fitting]))
    sums = {layer: torch.tensor(parts, dtype=torch.float64).sum(0).tolist() for layer, parts in far.items()}
    return Judgement(
        distance=tuple(Distance(layer, b / count, a / count) for layer, (b, a, count) in sums.items()),
        calibration=tuple(tuple(calibration[layer]) for layer in heads),
        report=tuple(reports),
    )


def divergence(whole: Tensor, exit_logits: Tensor) -> Tensor:
    """KL(whole model || exit) in nats at temperature 1, per row: ``[rows]``."""
    target = whole.float().log_softmax(dim=-1)
    return (target.exp() * (target - exit_logits.float().log_softmax(dim=-1))).sum(dim=-1)


def layer_states(model: LoadedModel, ids: Tensor, layers: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
    """Hidden states ``[batch * length, d]`` after each of ``layers``, and what the output layer reads at the end."""
    depth = len(model.layers)
    states = {layer: s.flatten(0, 1) for layer, s in run_layers(model, ids, {*layers, depth}).items()}
    return states, model.norm(states[depth])


@torch.no_grad()
def _rows(
    model: Readable,
    heads: Mapping[int, ExitHead],
    held_out: Tensor,
    batch: int,
    on_progress: Callable[[int, int], None],
) -> Iterator[_Rows]:
    """The held-out tokens in order, a bounded number of logits at a time."""
    fresh = {layer: ExitHead(model.norm, 0).to(model.device, model.dtype) for layer in heads}
    first = 0
    for start in range(0, len(held_out), batch):
        states, final = model.states(held_out[start : start + batch], tuple(heads))
        at_once = max(1, _LOGITS_AT_ONCE // model.vocab_size)
        for low in range(0, len(final), at_once):
            part = slice(low, low + at_once)
            yield _Rows(
                first,
                model.lm_head(final[part]),
                {layer: model.lm_head(head(states[layer][part])) for layer, head in heads.items()},
                {layer: model.lm_head(head(states[layer][part])) for layer, head in fresh.items()},
            )
            first += len(final[part])
        on_progress(min(start + batch, len(held_out)), len(held_out))


def _compare(rows: _Rows, seed: int) -> Iterator[tuple[int, float, Tensor, Tensor]]:
    """Per layer and temperature: each row's best two scores, and whether the whole model says the same.

    Every held-out token counts as a position of its own, so that no two share their noise.
    """
    count, vocabulary = rows.whole.shape
    positions = torch.arange(rows.first, rows.first + count, device=rows.whole.device)
    noise = Noise(positions, vocabulary, seed)
    for temperature in TEMPERATURES:
        sampling = Sampling(temperature=temperature)
        drawn = noise if temperature else None
        wanted = sample(rows.whole, positions, sampling, drawn)
        for layer, logits in rows.trained.items():
            found = best(logits, positions, sampling, drawn, count=2)
            yield layer, temperature, found.values.double(), (found.tokens[:, 0] == wanted).double()
