"""The steps of the recipe. Each reads and leaves files below the work folder, and can be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from foredraft.demo_models.corpus import Corpus
from foredraft.demo_models.grammar import token_texts
from foredraft.demo_models.growth import grow
from foredraft.demo_models.losses import draft_loss, target_loss
from foredraft.demo_models.pair import Pair
from foredraft.demo_models.plan import Plan
from foredraft.demo_models.progress import training_bar
from foredraft.demo_models.report import write_card
from foredraft.demo_models.tokenizer import BOS, EOS, VOCABULARY, learn_tokenizer, save_tokenizer
from foredraft.demo_models.train import Budget, Shape, Stream, build_model, train
from foredraft.demo_models.verdict import Judged, fill_card, judge_pair
from foredraft.exits.train import train_exits
from foredraft.progress import progress

SHALLOW = Shape(layers=10, hidden=96, intermediate=288, heads=3, kv_heads=3)
"""What the target is until it is grown."""

GROW_AFTER = (2, 7)
"""Behind how many of the shallow target's layers one is put in; readings after 2, 5, 7 are then after 3, 6, 9."""

GROW_SHARE = 0.16
"""The share of the target's time after which it is grown."""

TARGET = replace(SHALLOW, layers=SHALLOW.layers + len(GROW_AFTER))
"""Deep and narrow: on a CPU a small model's step costs by the operation, so a draft of one layer is far faster."""

DRAFT = Shape(layers=1, hidden=96, intermediate=512, heads=3, kv_heads=3)
"""As wide as the target, so that it starts from the target's embeddings."""

EXIT_LAYERS = (3, 6)
"""A quarter and half of the target: it was trained to be read there. A third would come too late to help."""

EXIT_RANK = 16
"""Of the adapters in the exit heads; a pass must not become a tenth slower by them."""


def tokenize(plan: Plan, corpus: Corpus, pair: Pair) -> Stream:
    """Learn the tokenizer where it is not there yet, write it beside both models, and tokenize the training files."""
    file = pair.target / "tokenizer.json"
    if not file.is_file():
        learned = learn_tokenizer([source.text for source in corpus.train], VOCABULARY)
        for folder, shape in ((pair.target, TARGET), (pair.draft, DRAFT)):
            save_tokenizer(learned, folder, shape.max_positions)
    tokenizer = Tokenizer.from_file(str(file))
    rows = [tokenizer.encode(f"{BOS}{source.text}{EOS}").ids for source in corpus.train]
    return Stream(rows, plan.seed, token_texts(tokenizer))


def train_target(plan: Plan, stream: Stream, pair: Pair, seconds: float) -> None:
    """Train the target and save it in 16 bit, where it is not there yet."""
    if (pair.target / "model.safetensors").is_file():
        return
    torch.manual_seed(plan.seed)
    shallow = build_model(SHALLOW, stream.vocabulary)
    first = Budget(seconds, plan.seed, plan.work / "shallow.pt", end_share=GROW_SHARE, threads=plan.threads)
    with training_bar("target, shallow") as show:
        train(shallow, stream.at, target_loss(shallow, stream.ruled_out), first, show)
    model = grow(shallow, SHALLOW, GROW_AFTER)
    second = Budget(seconds, plan.seed, plan.work / "target.pt", begin_share=GROW_SHARE, threads=plan.threads)
    with training_bar("target") as show:
        train(model, stream.at, target_loss(model, stream.ruled_out), second, show)
    save(model, pair.target)


def train_draft(plan: Plan, stream: Stream, pair: Pair, seconds: float) -> None:
    """Distil the draft from the stored target and save it in 16 bit, where it is not there yet."""
    if (pair.draft / "model.safetensors").is_file():
        return
    torch.manual_seed(plan.seed)
    target = LlamaForCausalLM.from_pretrained(pair.target, dtype=torch.float32).eval().requires_grad_(False)
    draft = build_model(DRAFT, stream.vocabulary)
    draft.model.embed_tokens.load_state_dict(target.model.embed_tokens.state_dict())
    draft.model.norm.load_state_dict(target.model.norm.state_dict())
    budget = Budget(seconds, plan.seed, plan.work / "draft.pt", threads=plan.threads)
    with training_bar("draft") as show:
        train(draft, stream.at, draft_loss(draft, target), budget, show)
    save(draft, pair.draft)


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write weights (float16, safetensors) and configuration; the tokenizer is there already."""
    model.half().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # it is written as readable by its owner alone


def train_pair_exits(plan: Plan, corpus: Corpus, pair: Pair, minutes: float) -> None:
    """Train the exit heads as a user would, the target frozen, where they are not there yet.

    Their confidence is fitted on the held-out files' own text. The judge looks at sampled continuations.
    """
    if (pair.exits / "card.json").is_file():
        return
    torch.set_num_threads(plan.threads)
    texts = [source.text for source in corpus.train]
    held_out = [source.text for source in corpus.held_out]
    with progress("exits") as show:
        train_exits(
            pair.target,
            texts,
            EXIT_LAYERS,
            pair.exits,
            held_out=held_out,
            rank=EXIT_RANK,
            minutes=minutes,
            seed=plan.seed,
            on_progress=lambda what, done, total, _loss: show(done, total, what),
        )


def judge(plan: Plan, corpus: Corpus, pair: Pair) -> Judged:
    """Sample from the pair and compare."""
    torch.set_num_threads(plan.threads)
    with progress("judge") as show:
        return judge_pair(pair, corpus, plan.samples, lambda done, total: show(done, total, "samples"))


def write(
    judged: Judged, corpus: Corpus, stream: Stream, pair: Pair, durations_s: Mapping[str, float], note: str = ""
) -> None:
    """Write card and README beside the pair. `note`: how this run differed from the recipe, if it did."""
    facts = {
        "train_files": len(corpus.train),
        "held_out_files": len(corpus.held_out),
        "train_tokens": len(stream.tokens),
    }
    write_card(fill_card(pair, judged, facts, durations_s, note), pair.card.parent)
