"""Running the pair for the judge: samples, what draft and exit would have said about them, and step times."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM

from foredraft.demo_models.judge import Guesses
from foredraft.engines.noise import sample
from foredraft.engines.torch_model import LoadedModel, run_layers
from foredraft.exits.heads import ExitHeads
from foredraft.protocol.sampling import Sampling

TEMPERATURE = 0.8
"""The temperature of the card's figures."""

TIMED_PREFIX_TOKENS = 128
"""Tokens in the cache behind which a step is timed."""

TIMED_ROUNDS = 200
"""How often each step is timed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A sampled text: all its tokens, how many of them are the prompt's, and the noise's seed."""

    tokens: tuple[int, ...]
    prompt_tokens: int
    seed: int


def sampled(logits: Tensor, positions: Tensor, seed: int) -> Tensor:
    """What the noise of this seed chooses at these positions, the marks of a file's start and end left out."""
    allowed = logits.clone()
    allowed[..., :2] = -torch.inf
    return sample(allowed, positions, Sampling(TEMPERATURE, seed=seed))


@torch.inference_mode()
def continue_prompt(
    model: LlamaForCausalLM, tokenizer: Tokenizer, prompt: str, seeds: Sequence[int], lines: int
) -> list[Sample]:
    """One continuation of `prompt` per seed, until each has `lines` complete lines or the context is full."""
    start = [0, *tokenizer.encode(prompt).ids]
    is_newline = torch.tensor([tokenizer.decode([i]).startswith("\n") for i in range(tokenizer.get_vocab_size())])
    rows = torch.tensor([start] * len(seeds))
    cache, newest = DynamicCache(config=model.config), rows
    newlines = torch.zeros(len(seeds), dtype=torch.long)
    while rows.size(1) < model.config.max_position_embeddings and int(newlines.min()) <= lines:
        logits = model(input_ids=newest, past_key_values=cache, logits_to_keep=1).logits[:, -1]
        position = torch.tensor([rows.size(1)])
        chosen = [sampled(row[None], position, seed) for row, seed in zip(logits, seeds, strict=True)]
        newest = torch.stack(chosen)
        newlines += is_newline[newest[:, 0]]
        rows = torch.cat([rows, newest], dim=1)
    return [_trimmed(row, len(start), seed, is_newline, lines) for row, seed in zip(rows, seeds, strict=True)]


def _trimmed(row: Tensor, prompt_tokens: int, seed: int, is_newline: Tensor, lines: int) -> Sample:
    """The row up to the newline that completes its last line; rows of a batch go on until all are complete."""
    ends = (is_newline[row[prompt_tokens:]].cumsum(0) == lines + 1).nonzero()
    length = prompt_tokens + int(ends[0]) + 1 if len(ends) else len(row)
    return Sample(tuple(row[:length].tolist()), prompt_tokens, seed)


@torch.inference_mode()
def guess_again(
    target: LoadedModel, draft: LoadedModel, sample: Sample, layer: int, heads: ExitHeads | None
) -> Guesses:
    """What the draft, and the exit after `layer` layers, would have said at each position of a sample."""
    ids = torch.tensor([sample.tokens])
    first = sample.prompt_tokens
    positions = torch.arange(first, len(sample.tokens))
    depth = len(draft.layers)
    logits = draft.logits(run_layers(draft, ids, [depth])[depth][0, first - 1 : -1])
    committed, drafted = sample.tokens[first:], tuple(sampled(logits, positions, sample.seed).tolist())
    if heads is None:
        return Guesses(committed, drafted)
    hidden = run_layers(target, ids, [layer])[layer][0, first - 1 : -1]
    early, confidence = heads.read(layer, hidden, positions, Sampling(TEMPERATURE, seed=sample.seed))
    return Guesses(committed, drafted, tuple(early.tolist()), tuple(confidence.tolist()))


@torch.inference_mode()
def step_durations_s(models: Sequence[LlamaForCausalLM]) -> list[float]:
    """Seconds of a one-token step of each model behind a cached prefix: the shortest of many, on one thread.

    The models take turns. A longer step is interrupted more often on a busy machine, so a middle would say more of
    the machine than of the models.
    """
    torch.set_num_threads(1)
    prefix = torch.arange(2, 2 + TIMED_PREFIX_TOKENS)[None] % models[0].config.vocab_size
    caches = [DynamicCache(config=model.config) for model in models]
    for model, cache in zip(models, caches, strict=True):
        model(input_ids=prefix, past_key_values=cache)
    taken_s: list[list[float]] = [[] for _ in models]
    for _ in range(TIMED_ROUNDS):
        for model, cache, durations_s in zip(models, caches, taken_s, strict=True):
            began_s = time.perf_counter()
            model(input_ids=prefix[:, :1], past_key_values=cache)
            durations_s.append(time.perf_counter() - began_s)
            cache.crop(-1)
    return [min(durations_s) for durations_s in taken_s]
