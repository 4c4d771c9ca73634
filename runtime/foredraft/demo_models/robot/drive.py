"""A model at the wheel: the plans it writes, greedily, and whole episodes of many worlds at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer

from foredraft.demo_models.robot.batches import Collator
from foredraft.demo_models.robot.language import END, GRID, IMAGE, SPECIAL, prompt
from foredraft.demo_models.robot.views import Lesson
from foredraft.errors import ConfigError
from foredraft.robot.camera import View, grey_view, render
from foredraft.robot.expert import expert_plan
from foredraft.robot.plans import Plan, read_plan
from foredraft.robot.walk import Episode, advance
from foredraft.robot.world import World

MAX_ANSWER = 32
"""Tokens of an answer, at most; a plan has fewer."""

Planner = Callable[[Sequence[Episode]], list[Plan | None]]
"""Episodes that wait for a decision to a plan for each; None where what was said is no plan."""


class Driver:
    """Plans by a model, as transformers runs it. `blind`: it is shown grey. `said`: all that it was asked and said."""

    def __init__(self, model: Any, tokenizer: Tokenizer, blind: bool = False) -> None:
        self._model, self._tokenizer, self._blind = model, tokenizer, blind
        self._collator = Collator(tokenizer)
        self.said: list[Lesson] = []

    def __call__(self, episodes: Sequence[Episode]) -> list[Plan | None]:
        """A plan for each episode's present view."""
        views = [grey_view() if self._blind else render(one.world, one.pose) for one in episodes]
        questions = [one.question for one in episodes]
        texts = self.write(views, questions)
        said = zip(views, questions, texts, strict=True)
        self.said += [Lesson(view, ((question, text),)) for view, question, text in said]
        return [_read(text) for text in texts]

    def write(self, views: Sequence[View], questions: Sequence[str]) -> list[str]:
        """What the model answers; prompts of one length run together, so that there is no padding."""
        prompts = [self._tokenizer.encode(prompt(question)).ids for question in questions]
        alike: dict[int, list[int]] = defaultdict(list)
        for number, ids in enumerate(prompts):
            alike[len(ids)].append(number)
        texts = [""] * len(prompts)
        for numbers in alike.values():
            answers = self._generate([views[n] for n in numbers], [prompts[n] for n in numbers])
            for number, answer in zip(numbers, answers, strict=True):
                texts[number] = answer
        return texts

    @torch.no_grad()
    def _generate(self, views: Sequence[View], prompts: Sequence[list[int]]) -> list[str]:
        ids = torch.tensor(prompts)
        out = self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=self._collator.pixels(views),
            image_grid_thw=torch.tensor([GRID] * len(views)),
            mm_token_type_ids=(ids == SPECIAL.index(IMAGE)).long(),
            max_new_tokens=MAX_ANSWER,
            do_sample=False,
        )
        said = out[:, ids.shape[1] :].tolist()
        end = SPECIAL.index(END)
        return [self._tokenizer.decode(row[: row.index(end)] if end in row else row) for row in said]


def expert(episodes: Sequence[Episode]) -> list[Plan | None]:
    """The planner that knows the world."""
    return [expert_plan(one.world, one.pose) for one in episodes]


def drive(worlds: Sequence[World], planner: Planner) -> list[Episode]:
    """The episodes of these worlds, each to its end; all that wait for a decision are asked for together."""
    episodes = [Episode(world) for world in worlds]
    while waiting := [number for number, one in enumerate(episodes) if not one.is_over]:
        plans = planner([episodes[number] for number in waiting])
        for number, plan in zip(waiting, plans, strict=True):
            episodes[number] = advance(episodes[number], plan)
    return episodes


def _read(text: str) -> Plan | None:
    try:
        return read_plan(text)
    except ConfigError:
        return None
