"""The steps of the robot's recipe. Each reads and leaves files below the work folder, and can be repeated."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer

from foredraft.demo_models.pair import Pair
from foredraft.demo_models.plan import Plan
from foredraft.demo_models.progress import training_bar
from foredraft.demo_models.robot.batches import BATCH_VIEWS, TRAIN_FROM, Collator, Draw, image_processor
from foredraft.demo_models.robot.language import learn_language, save_language
from foredraft.demo_models.robot.losses import Guide, LossOf, draft_loss, eyes_loss, target_loss
from foredraft.demo_models.robot.models import Shape, build_model, load
from foredraft.demo_models.robot.precision import quickest
from foredraft.demo_models.robot.remembered import LESSONS, remember
from foredraft.demo_models.robot.verdict import Judged, judge_pair
from foredraft.demo_models.robot.views import QUESTIONS
from foredraft.demo_models.steps import save
from foredraft.demo_models.train import Budget, train
from foredraft.exits.train import Settings, check_place, train_on
from foredraft.progress import progress

TARGET = Shape(layers=9, hidden=96, intermediate=288, kv_heads=3, eye_layers=4, eye_width=128)
"""Deep and narrow, as the other bundled target: a shallow draft is then far faster."""

DRAFT = Shape(layers=2, hidden=96, intermediate=192, kv_heads=3, eye_layers=2, eye_width=64)
"""Two layers: one to gather what is asked, one to look for it."""

OTHER_RATE = 0.0015
"""Of what is no matrix within a layer, the first look at the pixels among it: that shakes at the other pair's rate."""

EXIT_LAYERS = (3, 6)
"""A third and two thirds of the target: it was trained to be read there."""

EXIT_RANK = 16
"""Of the adapters in the exit heads."""

LANGUAGE_WORLDS = 400
"""Worlds from whose questions and plans the tokenizer is learned."""

ANSWER_TOKENS = 21
"""Of a plan, about; for the report of how much was trained on."""


def learn(pair: Pair) -> Tokenizer:
    """Learn the tokenizer where it is not there yet, and write it, and how images are taken, beside both models."""
    file = pair.target / "tokenizer.json"
    if not file.is_file():
        learned = learn_language(range(TRAIN_FROM, TRAIN_FROM + LANGUAGE_WORLDS))
        for folder in (pair.draft, pair.target):
            save_language(learned, folder)
            image_processor().save_pretrained(folder)
    return Tokenizer.from_file(str(file))


def train_target(plan: Plan, tokenizer: Tokenizer, pair: Pair, eyes_seconds: float, seconds: float) -> None:
    """Train the target, its eyes first, and save it in 16 bit, where it is not there yet."""
    if (pair.target / "model.safetensors").is_file():
        return
    torch.manual_seed(plan.seed)
    model = build_model(TARGET, tokenizer.get_vocab_size())
    model.guide = Guide(TARGET.hidden)
    _train(plan, tokenizer, model, eyes_loss(model), eyes_seconds, "target-eyes")
    _train(plan, tokenizer, model, target_loss(model, EXIT_LAYERS), seconds, "target")
    del model.guide
    save(model, pair.target)


def train_draft(plan: Plan, tokenizer: Tokenizer, pair: Pair, eyes_seconds: float, seconds: float) -> None:
    """Train the draft's eyes, distil it from the stored target, and save it in 16 bit, where it is not there yet."""
    if (pair.draft / "model.safetensors").is_file():
        return
    torch.manual_seed(plan.seed)
    target = load(pair.target)
    draft = build_model(DRAFT, tokenizer.get_vocab_size())
    draft.guide = Guide(DRAFT.hidden)
    _train(plan, tokenizer, draft, eyes_loss(draft), eyes_seconds, "draft-eyes")
    _train(plan, tokenizer, draft, draft_loss(draft, target), seconds, "draft")
    del draft.guide
    save(draft, pair.draft)


def _train(plan: Plan, tokenizer: Tokenizer, model: Any, loss_of: LossOf, seconds: float, name: str) -> None:
    tokens = BATCH_VIEWS * QUESTIONS * ANSWER_TOKENS
    checkpoint = plan.work / f"{name}.pt"
    budget = Budget(seconds, plan.seed, checkpoint, other_rate=OTHER_RATE, threads=plan.threads, step_tokens=tokens)
    model.set_attn_implementation("eager")  # for rows this short it is the faster one
    with training_bar(name) as show:
        train(model, Draw(Collator(tokenizer)), quickest(loss_of), budget, show)


def train_pair_exits(plan: Plan, tokenizer: Tokenizer, pair: Pair, minutes: float) -> None:
    """Train the exit heads on what the frozen target makes of some lessons, where they are not there yet."""
    if (pair.exits / "card.json").is_file():
        return
    torch.set_num_threads(plan.threads)
    target = load(pair.target)
    settings = Settings(EXIT_LAYERS, rank=EXIT_RANK, steps=4000, minutes=minutes, seed=plan.seed, batch=16)
    with progress("exits") as show:
        model, windows = remember(target, pair.target, Collator(tokenizer), EXIT_LAYERS, LESSONS, show)
        check_place(model, EXIT_LAYERS, pair.exits)
        train_on(model, windows, settings, pair.exits, 25, lambda what, done, total, _loss: show(done, total, what))


def judge(plan: Plan, pair: Pair) -> Judged:
    """Let everyone who plans loose in the held-out worlds."""
    torch.set_num_threads(plan.threads)
    with progress("judge") as show:
        return judge_pair(pair, plan.samples, show)
