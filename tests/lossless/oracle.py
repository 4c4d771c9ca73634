"""What the target alone writes, computed by transformers: nothing of the engines under test takes part.

Greedy texts come from ``generate``. Sampled ones from one whole forward per token, without a cache, and the
noise of the position (``engines.noise``, itself tested against the filtered softmax).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from foredraft.engines.noise import perturb
from foredraft.protocol.sampling import Sampling
from lossless.tally import EPSILON, TALLY, Tally


@dataclass(frozen=True, slots=True)
class Text:
    """A reference text. ``margins[i]``: by how much ``tokens[i]`` beat the runner-up, noise included."""

    tokens: list[int]
    margins: list[float]


@dataclass
class Oracle:
    """One target's texts."""

    model: Any
    texts: dict[tuple[tuple[int, ...], Sampling, int], Text] = field(default_factory=dict)
    tally: Tally = field(default_factory=lambda: TALLY)

    @classmethod
    def of(cls, folder: Path) -> "Oracle":
        return cls(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())

    def text(self, prompt: Sequence[int], sampling: Sampling, length: int) -> Text:
        """What the target alone writes after ``prompt``."""
        key = (tuple(prompt), sampling, length)
        if key not in self.texts:
            greedy = sampling.temperature == 0.0
            self.texts[key] = (self._greedy if greedy else self._sampled)(prompt, sampling, length)
        return self.texts[key]

    def _greedy(self, prompt: Sequence[int], sampling: Sampling, length: int) -> Text:
        ids = torch.tensor([list(prompt)])
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=length, eos_token_id=None
            )[0]
            scores = self.model(said.unsqueeze(0)).logits[0, len(prompt) - 1 : -1]
        return Text(said[len(prompt) :].tolist(), [_margin(row) for row in scores])

    def _sampled(self, prompt: Sequence[int], sampling: Sampling, length: int) -> Text:
        text, margins = list(prompt), list[float]()
        for _ in range(length):
            with torch.inference_mode():
                logits = self.model(torch.tensor([text]), use_cache=False).logits[0, -1:]
            scores = perturb(logits, torch.tensor([len(text)]), sampling)[0]
            text.append(int(scores.argmax()))
            margins.append(_margin(scores))
        return Text(text[len(prompt) :], margins)

    def check(self, tokens: Sequence[int], prompt: Sequence[int], sampling: Sampling) -> None:
        """Raise AssertionError unless ``tokens`` are what the target alone writes, up to the first tie."""
        self.tally.compared += 1
        expected = self.text(prompt, sampling, len(tokens))
        pairs = zip(tokens, expected.tokens, expected.margins, strict=True)
        for place, (token, wanted, margin) in enumerate(pairs):
            if token == wanted:
                continue
            assert margin < EPSILON, f"token {place} is {token}, not {wanted}, which leads by {margin:.3g}"
            self.tally.ties += 1
            return


def _margin(scores: torch.Tensor) -> float:
    best = scores.topk(2).values
    return float(best[0] - best[1])
