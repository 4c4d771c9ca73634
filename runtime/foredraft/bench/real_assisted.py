"""``bench real``: the same pair in transformers' hands, in a process of its own, both models on its one thread.

Paced, each forward pass of either model takes as long as the emulated device would.
"""

import sys
import time
from typing import Any

import torch

from foredraft.bench.child import answer
from foredraft.bench.engine import Transformers
from foredraft.demo_models import bundled_pair
from foredraft.text.tokenizer import Tokenizer


def main() -> None:
    """Arguments: seconds of a target pass and of a draft step (0: as they come)."""
    pass_s, step_s = map(float, sys.argv[1:])
    torch.set_num_threads(1)
    pair = bundled_pair()
    models = Transformers(pair.target, pair.draft)
    tokenizer = Tokenizer.from_folder(pair.target)
    _pace(models.target, pass_s)
    _pace(models.draft, step_s)

    def generate(asked: dict[str, Any]) -> dict[str, Any]:
        tokens = tokenizer.encode(asked["prompt"])
        began_s = time.perf_counter()
        models.generate(tokens, asked["max_new_tokens"], asked["assistant"], asked["temperature"], asked["seed"])
        return {"e2e_s": time.perf_counter() - began_s, "new_tokens": asked["max_new_tokens"]}

    answer(generate)


def _pace(model: Any, least_s: float) -> None:
    """Let each forward pass take at least so long."""
    began_s: list[float] = []

    def before(*_: object) -> None:
        began_s.append(time.perf_counter())

    def after(*_: object) -> None:
        time.sleep(max(0.0, began_s.pop() + least_s - time.perf_counter()))

    if least_s:
        model.register_forward_pre_hook(before)
        model.register_forward_hook(after)


if __name__ == "__main__":
    main()
