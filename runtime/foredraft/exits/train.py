"""Training exit heads: the backbone stays as it is, the heads learn what the whole model says.

The loss is the divergence of a head's distribution from the whole model's (distillation), not the language-model loss
of EE-Tuning (arXiv 2402.00518): a hint must foresee the verdict, not the corpus.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from torch import Tensor
from torch.optim import AdamW

from foredraft.engines.torch_model import LoadedModel, load_model
from foredraft.errors import ConfigError
from foredraft.exits.card import CARD_FILE, CARD_FORMAT, ExitCard, read_card, write_atomically
from foredraft.exits.data import TextReader, Windows, batch_rows, make_windows
from foredraft.exits.heads import ExitHead, round_heads, save_heads, weights_digest
from foredraft.exits.judge import Readable, divergence, judge, readable
from foredraft.protocol.sampling import SEED_BITS

RESUME_FILE: Final = ".resume.pt"
_WARM_UP_STEPS: Final = 20
_LOGITS_AT_ONCE: Final = 1 << 24
_SAVE_EVERY: Final = 25

OnProgress = Callable[[str, int, int, float], None]
"""Told what is being done, how much of it is done, how much there is, and the loss (NaN where there is none)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train. The result is a function of these, the model and the text, unless ``minutes`` cuts it short.

    ``rank``: of the adapter, 0 for none. ``window``: tokens per training row, at most the model's context.
    ``minutes``: train no longer than this; the learning rate then falls with the time.
    """

    layers: tuple[int, ...]
    rank: int = 64
    steps: int = 500
    minutes: float | None = None
    seed: int = 0
    batch: int = 8
    window: int = 512
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        if not self.layers or any(b <= a for a, b in zip(self.layers, self.layers[1:], strict=False)):
            raise ConfigError(f"exit layers must ascend without repeats, not {_listed(self.layers)}")
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.rank < 0:
            raise ConfigError(f"rank must be 0 (no adapter) or more, not {self.rank}")
        if self.window < 2:
            raise ConfigError(f"window must be 2 tokens or more, not {self.window}")
        if not 0 <= self.seed < 2**SEED_BITS:
            raise ConfigError(f"seed must be between 0 and 2**{SEED_BITS}-1, not {self.seed}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"learning rate must be above 0, not {self.learning_rate}")
        if self.minutes is not None and not (math.isfinite(self.minutes) and self.minutes > 0):
            raise ConfigError(f"minutes must be above 0, not {self.minutes}")


def train_exits(
    model: str | Path | LoadedModel,
    texts: Sequence[Path | str],
    layers: Sequence[int] | None,
    out: Path,
    *,
    held_out: Sequence[Path | str] | None = None,
    rank: int = 64,
    steps: int = 500,
    minutes: float | None = None,
    seed: int = 0,
    batch: int = 8,
    window: int = 512,
    learning_rate: float = 2e-3,
    device: str = "cpu",
    dtype: str = "float32",
    save_every: int = _SAVE_EVERY,
    on_progress: OnProgress | None = None,
) -> ExitCard:
    """Train, calibrate and save exit heads for ``model`` after each of ``layers``; the card that lies in ``out``.

    ``layers``: a third and two thirds of the model's where None is given.
    ``texts`` and ``held_out``: a Path is a file, a string is text itself. A run that was killed goes on where it was
    last saved when it is called again with the same arguments, and ends with the same heads.

    Raises:
        ConfigError: layers, text or settings do not fit the model, or ``out`` holds something else.
        ModelError: the model cannot be used.
    """
    chosen = (1,) if layers is None else tuple(layers)  # what a third is, the model says
    settings = Settings(chosen, rank, steps, minutes, seed, batch, window, learning_rate)
    progress = on_progress or (lambda what, done, total, loss: None)
    loaded = model if isinstance(model, LoadedModel) else load_model(model, dtype, device)
    if layers is None:
        settings = replace(settings, layers=thirds(len(loaded.layers)))
    model_read = readable(loaded)
    check_place(model_read, settings.layers, out)
    length = min(window, loaded.context)
    windows = make_windows(TextReader(loaded), texts, held_out, length, batch)
    return train_on(model_read, windows, settings, out, save_every, progress)


def check_place(model: Readable, layers: tuple[int, ...], out: Path) -> None:
    """Whether exits after ``layers`` can be trained into ``out``. Raises ConfigError where not."""
    _check_layers(layers, model.depth)
    _check_folder(out, model)


def train_on(
    model: Readable, windows: Windows, settings: Settings, out: Path, save_every: int, on_progress: OnProgress
) -> ExitCard:
    """As ``train_exits``, for any model whose hidden states can be had for the windows' ids."""
    run = _Run(model, settings, windows, out / RESUME_FILE)
    run.train(save_every, on_progress)
    return _finish(run, out, on_progress)


def thirds(depth: int) -> tuple[int, ...]:
    """After a third and two thirds of ``depth`` layers, as far as these are exits: neither none of them nor all."""
    return tuple(sorted({round(depth / 3), round(2 * depth / 3)} - {0, depth})) or (1,)


class _Run:
    """One training: the heads and all that changes while they train."""

    def __init__(self, model: Readable, settings: Settings, windows: Windows, resume_file: Path) -> None:
        self.model, self.settings, self.windows, self._resume_file = model, settings, windows, resume_file
        generator = torch.Generator().manual_seed(settings.seed)
        self.heads = {n: ExitHead(model.norm, settings.rank, generator).to(model.device) for n in settings.layers}
        self._parameters = [p for head in self.heads.values() for p in head.parameters()]
        self._optimizer = AdamW(self._parameters, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.step, self._elapsed_s = 0, 0.0
        self._fingerprint = msgspec.json.encode(
            {**asdict(settings), "model": model.digest, "text": windows.digest, "dtype": str(model.dtype)}
        ).decode()

    def train(self, save_every: int, progress: OnProgress) -> None:
        """Train to the end, from where an earlier run was last saved."""
        self._resume()
        started = time.monotonic() - self._elapsed_s
        steps = self.settings.steps
        while (done := self._done()) < 1.0:
            rate = min((self.step + 1) / _WARM_UP_STEPS, 1.0) * (1.0 - done)
            loss = self._one_step(self.settings.learning_rate * rate)
            self.step += 1
            self._elapsed_s = time.monotonic() - started
            if self.step % save_every == 0:
                self._save()
            progress("training", self.step, steps, loss)

    def _done(self) -> float:
        """The share of the training that is behind us, 1 at its end."""
        by_time = self._elapsed_s / (self.settings.minutes * 60) if self.settings.minutes else 0.0
        return max(self.step / self.settings.steps, by_time)

    def _one_step(self, learning_rate: float) -> float:
        rows = batch_rows(self.settings.seed, self.step, len(self.windows.train), self.settings.batch)
        with torch.no_grad():
            states, final = self.model.states(self.windows.train[rows], self.settings.layers)
        at_once = max(1, _LOGITS_AT_ONCE // self.model.vocab_size)
        total = 0.0
        for low in range(0, len(final), at_once):  # a large vocabulary's logits would not fit at once
            part = slice(low, low + at_once)
            with torch.no_grad():
                whole = self.model.lm_head(final[part])
            for layer, head in self.heads.items():
                total += self._learn(head, states[layer][part], whole, len(final))
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        return total / len(self.heads)

    def _learn(self, head: ExitHead, hidden: Tensor, whole: Tensor, rows: int) -> float:
        """Add one chunk's gradient of the mean over ``rows``; its share of the loss."""
        logits = self.model.lm_head(head(hidden.float()).to(self.model.dtype))
        loss = divergence(whole, logits).sum() / rows
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _save(self) -> None:
        state = {
            "fingerprint": self._fingerprint,
            "step": self.step,
            "elapsed_s": self._elapsed_s,
            "heads": {layer: head.state_dict() for layer, head in self.heads.items()},
            "optimizer": self._optimizer.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self._resume_file, buffer.getvalue())

    def _resume(self) -> None:
        if not self._resume_file.exists():
            return
        try:
            state: dict[str, Any] = torch.load(self._resume_file, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling a broken file fails in many ways
            raise ConfigError(f"cannot go on from {self._resume_file} ({error}); delete it to start anew") from error
        _check_fingerprint(state["fingerprint"], self._fingerprint, self._resume_file)
        for layer, head in self.heads.items():
            head.load_state_dict(state["heads"][layer])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self._elapsed_s = state["step"], state["elapsed_s"]


def _finish(run: _Run, out: Path, progress: OnProgress) -> ExitCard:
    """Round the heads to what is stored, judge them so, save them."""
    round_heads(run.heads)
    judged_heads: Mapping[int, ExitHead] = {n: head.to(run.model.dtype) for n, head in run.heads.items()}
    judgement = judge(
        run.model,
        judged_heads,
        run.windows.held_out,
        run.settings.batch,
        run.settings.seed,
        lambda done, total: progress("judging", done, total, math.nan),
    )
    card = ExitCard(
        format=CARD_FORMAT,
        model=run.model.name,
        model_digest=run.model.digest,
        model_layers=run.model.depth,
        layers=run.settings.layers,
        rank=run.settings.rank,
        weights_digest=weights_digest(run.heads),
        text_digest=run.windows.digest,
        text_tokens=run.windows.train.numel(),
        held_out_tokens=run.windows.held_out.numel(),
        steps=run.step,
        seed=run.settings.seed,
        distance=judgement.distance,
        calibration=judgement.calibration,
        report=judgement.report,
    )
    save_heads(out, run.heads, card)
    (out / RESUME_FILE).unlink(missing_ok=True)
    return card


def _listed(layers: Sequence[int]) -> str:
    return ",".join(map(str, layers)) or "none"


def _check_layers(layers: tuple[int, ...], depth: int) -> None:
    if layers[0] < 1 or layers[-1] >= depth:
        raise ConfigError(
            f"exit layers {_listed(layers)} do not fit: the model has {depth} layers, and an exit sits after layer 1 "
            f"to {depth - 1} (after layer {depth} is the model's own output)"
        )


def _check_folder(out: Path, model: Readable) -> None:
    if (out / CARD_FILE).exists():
        card = read_card(out)
        if card.model_digest != model.digest:
            raise ConfigError(
                f"{out} holds the exits of another model ({card.model}, digest {card.model_digest}; this one is "
                f"{model.digest}): choose another folder"
            )


def _check_fingerprint(theirs: str, ours: str, path: Path) -> None:
    old, new = msgspec.json.decode(theirs), msgspec.json.decode(ours)
    differing = [f"{key} {old.get(key)} there, {new[key]} here" for key in new if old.get(key) != new[key]]
    if differing:
        raise ConfigError(
            f"{path} is from an unfinished training with other settings ({'; '.join(differing)}): repeat those, "
            "or delete it to start anew"
        )
