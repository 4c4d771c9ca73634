"""Training a small model within a budget of seconds: the loop, its schedule, its checkpoints.

The schedule is a function of the *share of the budget that is spent*, not of steps, so the rate reaches zero in time
on any machine; a slower one sees fewer tokens. A run is resumed from its last checkpoint, with the seconds already
spent counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from foredraft.demo_models.grammar import Grammar
from foredraft.demo_models.optim import Optimiser
from foredraft.demo_models.threads import ThreadChooser

WARM_UP_SHARE = 0.02
"""The share of the budget in which the rate rises from zero."""

WINDOWS = ((0.4, 256), (0.75, 512), (1.0, 1024))
"""Tokens per training window until a share of the budget is spent: short ones are cheap, long ones teach reach."""

STEP_TOKENS = 3072
"""Tokens per optimiser step, whatever the window."""

CHECKPOINT_EVERY_S = 60.0
REPORT_EVERY_S = 5.0
FILE_START_SHARE = 0.1
"""The share of windows that begin where a file begins, as prompts do."""


class Batch(NamedTuple):
    """Windows of training text, both (rows, length + 1)."""

    tokens: Tensor
    states: Tensor
    """The number of the grammar's state after each token (`grammar.py`)."""


LossOf = Callable[[Batch, int], tuple[Tensor, Tensor]]
"""A batch and the step's number in; the loss to descend and the one to report (nats/token) out."""

B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a Llama model: how deep, how wide, and how many heads share keys and values."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    max_positions: int = 1024


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to train, from which seed, and where to keep the checkpoint.

    The schedule spans all of `seconds`. A training in two parts gives each part its piece of it: from
    `begin_share` until `end_share`.
    """

    seconds: float
    seed: int
    checkpoint: Path
    begin_share: float = 0.0
    end_share: float = 1.0
    matrix_rate: float = 0.02
    other_rate: float = 0.004
    threads: int = 2
    step_tokens: int = STEP_TOKENS
    """Counted for each step, for the report."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is: reported every few seconds and once at the end."""

    elapsed_s: float
    budget_s: float
    tokens: int
    loss_nats: float

    @property
    def share(self) -> float:
        """The share of the budget that is spent, 0 to 1."""
        return min(1.0, self.elapsed_s / self.budget_s)


class Stream:
    """The training files as one row of tokens, where in it each file starts, and what each token leaves open."""

    def __init__(self, files: Sequence[Sequence[int]], seed: int, texts: Sequence[str]) -> None:
        """`texts`: what each token of the vocabulary stands for."""
        self.vocabulary = len(texts)
        grammar = Grammar(texts)
        self.states = torch.tensor([state for file in files for state in grammar.number(file)])
        self.ruled_out = grammar.ruled_out()
        self.starts = torch.tensor([0, *(len(file) for file in files)][:-1]).cumsum(0)
        self.tokens = torch.tensor([token for file in files for token in file], dtype=torch.long)
        self._random = torch.Generator().manual_seed(seed)

    def at(self, share: float) -> Batch:
        """The next step's batch where this share of the budget is spent."""
        length = window_at(share)
        return self.batch(max(1, STEP_TOKENS // length), length)

    def batch(self, rows: int, length: int) -> Batch:
        """`rows` random windows of `length + 1` tokens, some of them from the start of a file."""
        last = max(1, len(self.tokens) - length - 1)
        at = torch.randint(0, last, (rows,), generator=self._random)
        files = torch.randint(0, len(self.starts), (rows,), generator=self._random)
        from_start = torch.rand(rows, generator=self._random) < FILE_START_SHARE
        at = torch.where(from_start, self.starts[files].clamp(max=last - 1), at)
        index = (at[:, None] + torch.arange(length + 1)).clamp(max=len(self.tokens) - 1)
        return Batch(self.tokens[index], self.states[index])


def build_model(shape: Shape, vocabulary: int) -> LlamaForCausalLM:
    """An untrained Llama of this shape with tied embeddings, in fp32. Its first two tokens are bos and eos."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def rate_factor(share: float) -> float:
    """The learning rate at this share of the budget, relative to its peak: a short rise, then a cosine to zero."""
    if share < WARM_UP_SHARE:
        return share / WARM_UP_SHARE
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (share - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))))


def window_at(share: float) -> int:
    """Tokens per window at this share of the budget."""
    return next((length for until, length in WINDOWS if share < until), WINDOWS[-1][1])


def train(
    model: nn.Module,
    draw: Callable[[float], B],
    loss_of: Callable[[B, int], tuple[Tensor, Tensor]],
    budget: Budget,
    report: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Train `model` in place until its share of the budget is spent, going on from its checkpoint if there is one.

    `draw`: the next batch, given the share of the budget that is spent; `loss_of`: as `LossOf`, for such batches.
    """
    threads = ThreadChooser(budget.threads)
    optimiser = Optimiser(model, budget.matrix_rate, budget.other_rate)
    spent_s, step, tokens, loss_nats = _resume(model, optimiser, budget)
    model.train()
    began_s = time.monotonic() - spent_s
    saved_s = reported_s = spent_s
    while (elapsed_s := time.monotonic() - began_s) < budget.seconds * budget.end_share or step == 0:
        share = min(1.0, elapsed_s / budget.seconds)
        threads.before_step(step)
        loss, plain = loss_of(draw(share), step)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step(rate_factor(share))
        threads.after_step(time.monotonic() - began_s - elapsed_s)
        step, tokens = step + 1, tokens + budget.step_tokens
        loss_nats = plain.item() if step == 1 else 0.95 * loss_nats + 0.05 * plain.item()
        if elapsed_s - reported_s >= REPORT_EVERY_S:
            report(Progress(elapsed_s, budget.seconds, tokens, loss_nats))
            reported_s = elapsed_s
        if elapsed_s - saved_s >= CHECKPOINT_EVERY_S:
            _save(model, optimiser, budget, (elapsed_s, step, tokens, loss_nats))
            saved_s = elapsed_s
    elapsed_s = time.monotonic() - began_s
    _save(model, optimiser, budget, (elapsed_s, step, tokens, loss_nats))
    model.eval()
    final = Progress(elapsed_s, budget.seconds, tokens, loss_nats)
    report(final)
    return final


Counters = tuple[float, int, int, float]


def _save(model: nn.Module, optimiser: Optimiser, budget: Budget, counters: Counters) -> None:
    budget.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    half = budget.checkpoint.with_suffix(".part")
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "counters": counters}, half)
    half.replace(budget.checkpoint)


def _resume(model: nn.Module, optimiser: Optimiser, budget: Budget) -> Counters:
    if not budget.checkpoint.is_file():
        return budget.begin_share * budget.seconds, 0, 0, 0.0
    state = torch.load(budget.checkpoint, weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    spent_s, step, tokens, loss_nats = state["counters"]
    return spent_s, step, tokens, loss_nats
