"""Shared noise beside rejection sampling: what a pass of the target brings under either rule of acceptance.

Rounds of synchronous drafting, in chains and in trees that grow best first, so that nothing depends on the machine's
speed. Each prompt is written with several seeds; texts differ between the rules, so the figures have a standard error.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from foredraft.api.cloud import Cloud
from foredraft.api.edge import Edge, connect
from foredraft.api.loading import DEMO, ModelOptions
from foredraft.bench.result import Figure, Result
from foredraft.edge.policy import Policy
from foredraft.edge.session_report import SessionReport
from foredraft.edge.state import EdgeState
from foredraft.edge.step import Step, VerifyParams
from foredraft.policies.frontier import unexpanded
from foredraft.policies.sync import SyncPolicy
from foredraft.protocol.sampling import NOISE, REJECTION
from foredraft.protocol.tree import Node

TEMPERATURES: Final = (0.6, 0.8, 1.0)
GAMMA: Final = 4
NODES: Final = 12
CODE: Final = (
    "def fibonacci(n: int) -> int:\n    ",
    "class Stack:\n    def push(self, item):\n        ",
    "for i in range(10):\n    if i % 2 == 0:\n        print(",
    "import os\n\n\ndef main() -> None:\n    ",
)
PROSE: Final = (
    "The three laws of thermodynamics say that",
    "Once upon a time, in a small village by the sea,",
    "To change a bicycle tyre, first",
    "Dear Ms. Robinson, thank you for your letter of",
)


@dataclass(frozen=True, slots=True)
class Trees:
    """Rounds as in ``sync``, of a tree of ``nodes`` in the place of a chain: best first, ``width`` guesses a node."""

    nodes: int = NODES
    width: int = 3
    name: str = "trees"

    def verify_params(self, state: EdgeState) -> VerifyParams:
        """The whole tree in one pass; never alone."""
        return VerifyParams(max_branches=self.nodes, max_nodes=self.nodes)

    def step(self, state: EdgeState) -> Step | None:
        """Expand the likeliest node, until the tree is large enough."""
        if state.verifying or len(state.tree) >= self.nodes:
            return None
        best = unexpanded(state, 1, 0.0)
        return Step((best[0][1],), self.width) if best else None

    def ship(self, state: EdgeState) -> Sequence[Node]:
        """The tree, once nothing more is to be drafted."""
        if state.verifying or self.step(state) is not None:
            return ()
        return [node for node, _ in state.path_probabilities if node.parent is not None][: self.nodes]


SHAPES: Final[tuple[tuple[str, Policy], ...]] = (
    (f"chains of {GAMMA}", SyncPolicy(GAMMA)),
    (f"trees of {NODES}", Trees()),
)


async def measure(
    model: str = DEMO, draft: str | Path = DEMO, threads: int = 0, *, new_tokens: int = 64, seeds: int = 4
) -> Result:
    """Texts of ``new_tokens`` over the prompts of the bundled pair, or over prose. Raises ModelError, ConfigError."""
    options = ModelOptions(threads=threads)
    prompts = CODE if model == DEMO else PROSE
    cloud = await asyncio.to_thread(Cloud.load, model, options=options)
    figures: list[Figure] = []
    async with cloud, connect(cloud, draft=draft, options=options) as edge:
        for shape, policy in SHAPES:
            for temperature in TEMPERATURES:
                rules = [
                    _tokens_per_pass(
                        [
                            await _report(edge, prompt, policy, temperature, seed, rule, new_tokens)
                            for prompt in prompts
                            for seed in range(seeds)
                        ]
                    )
                    for rule in (NOISE, REJECTION)
                ]
                figures += _figures(f"{shape}, T = {temperature:g}", *rules)
    texts = len(prompts) * seeds
    return Result(
        "acceptance", f"{model}, draft {draft}: {texts} texts of {new_tokens} tokens each way", tuple(figures)
    )


async def _report(
    edge: Edge, prompt: str, policy: Policy, temperature: float, seed: int, rule: str, new_tokens: int
) -> SessionReport:
    asked = edge.generate(
        prompt,
        policy=policy,
        temperature=temperature,
        seed=seed,
        max_new_tokens=new_tokens,
        end_marks=False,
        acceptance=rule,
    )
    return await asked.finish()


def _tokens_per_pass(reports: Sequence[SessionReport]) -> tuple[float, float]:
    """Tokens of a pass on average, and the standard error of that by the texts' spread."""
    mean = sum(report.new_tokens for report in reports) / sum(report.passes for report in reports)
    off = [report.new_tokens - mean * report.passes for report in reports]
    passes = sum(report.passes for report in reports)
    return mean, math.sqrt(sum(one * one for one in off)) / passes


def _figures(what: str, noise: tuple[float, float], rejection: tuple[float, float]) -> list[Figure]:
    ratio = rejection[0] / noise[0]
    error = ratio * math.hypot(noise[1] / noise[0], rejection[1] / rejection[0])
    return [
        Figure(f"{what}: {NOISE}", noise[0], "tokens per pass"),
        Figure(f"{what}: {REJECTION}", rejection[0], "tokens per pass"),
        Figure(f"{what}: {REJECTION} over {NOISE}", ratio, "x", span=(ratio - 2 * error, ratio + 2 * error)),
    ]
