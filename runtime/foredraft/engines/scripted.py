"""Scripted engines: what they say is a function of the position, and they take no time.

They are for tests, examples and measurements of everything around the models. What a
scripted target says at a position does not depend on the text before it: a walk never gets
past a token that differs from the script, so nothing else is ever asked of it.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from foredraft.protocol.ports import Guess, Pass, Prediction, TargetCard, Verdict
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node

Script = Callable[[int], int]
"""The token at a position of the text."""

ExitScript = Callable[[int, int], tuple[int, float]]
"""What the exit after a layer (first argument) says of a position (second): token, confidence."""

GuessAt = Callable[[int, int], Sequence[Guess]]
"""The guesses at a position (first argument), at most as many as the second says, best first."""

DIGEST = "scripted"


class ScriptedTarget:
    """A target whose text is a script; with ``foresight`` its exits say something, too.

    ``worker``: each pass goes through this executor and back, as a real one would. ``rejects``: whether drafts may
    propose; whatever they do, what comes is the script.
    """

    def __init__(
        self,
        script: Script,
        *,
        exit_script: ExitScript | None = None,
        exits: tuple[int, ...] = (),
        layers: int = 8,
        vocab_size: int = 1 << 16,
        context: int = 1 << 30,
        max_pass_nodes: int = 32,
        prefill_chunk: int = 512,
        tokenizer_digest: str = DIGEST,
        worker: Executor | None = None,
        rejects: bool = False,
    ) -> None:
        self.script = script
        self.exit_script = exit_script
        self.worker = worker
        self._card = TargetCard(
            model_digest=DIGEST,
            tokenizer_digest=tokenizer_digest,
            vocab_size=vocab_size,
            context=context,
            layers=layers,
            exits=exits if exit_script is not None else (),
            max_pass_nodes=max_pass_nodes,
            prefill_chunk=prefill_chunk,
            rejects=rejects,
        )

    @property
    def card(self) -> TargetCard:
        """What it is."""
        return self._card

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> "ScriptedSlot":
        """A place; there is always one."""
        return ScriptedSlot(self.card.layers, self.script, self.exit_script, self.worker)

    async def close(self) -> None:
        """Nothing to free."""


class ScriptedSlot:
    """One session's place on a scripted target."""

    def __init__(
        self,
        layers: int,
        script: Script,
        exit_script: ExitScript | None = None,
        worker: Executor | None = None,
        *,
        yields: bool = True,
    ) -> None:
        """``yields``: others have a turn of the loop in each pass; of no use where the pass is paced."""
        self._yields = yields
        self._layers = layers
        self._script = script
        self._exit_script = exit_script
        self._worker = worker
        self._cached = 0

    @property
    def cached(self) -> int:
        """How many tokens of the text went through."""
        return self._cached

    async def prefill(self, tokens: Sequence[int]) -> float:
        """Take committed tokens."""
        await _visit(self._worker)
        self._cached += len(tokens)
        return 0.0

    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        """Say what the script says after the tip and after each node; the exits before it."""
        depths = [0]
        for parent in batch.parents:
            depths.append(depths[parent + 1] + 1)
        tip = self._cached + len(batch.trunk)
        exit_script = self._exit_script
        if exit_script is not None:
            for layer in batch.exits:
                seen = [exit_script(layer, tip + depth) for depth in depths]
                on_exit(Prediction(layer, tuple(s[0] for s in seen), tuple(s[1] for s in seen)))
        if self._yields:
            await _visit(self._worker)
        self._cached = tip
        script = self._script
        says = tuple([script(tip + depth) for depth in depths])
        scores = () if batch.logprobs is None else tuple([_scored(token, batch.logprobs) for token in says])
        return Verdict(Prediction(self._layers, says, (1.0,) * len(says), scores), 0.0, 0.0)

    def keep(self, nodes: Sequence[int]) -> None:
        """Keep a path of the last pass."""
        self._cached += len(nodes)

    def close(self) -> None:
        """Nothing to free."""


def _scored(token: int, count: int) -> tuple[tuple[int, float], ...]:
    """A script has no probabilities: each token half as probable as the one before, by number."""
    return ((token, -0.5), *((token + place, -0.5 * (place + 1)) for place in range(count)))


class ScriptedDrafter:
    """A drafter that guesses what it is told to guess at a position, whatever the path."""

    def __init__(
        self,
        guess_at: GuessAt,
        *,
        tokenizer_digest: str = "",
        max_nodes_per_step: int = 8,
        worker: Executor | None = None,
    ) -> None:
        self._guess_at = guess_at
        self._digest = tokenizer_digest
        self._max_nodes_per_step = max_nodes_per_step
        self._worker = worker

    @property
    def tokenizer_digest(self) -> str:
        """The tokenizer that it was told to speak; empty for any."""
        return self._digest

    @property
    def max_nodes_per_step(self) -> int:
        """How many nodes one step may expand."""
        return self._max_nodes_per_step

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """Nothing to prepare."""

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """The scripted guesses below each node."""
        await _visit(self._worker)
        return [list(self._guess_at(node.position, width)) for node in nodes]

    def advance(self, tokens: Sequence[int]) -> None:
        """Nothing to keep."""

    async def close(self) -> None:
        """Nothing to free."""


async def _visit(worker: Executor | None) -> None:
    """A hop to the worker thread and back, or a turn of the loop."""
    if worker is None:
        await asyncio.sleep(0)
    else:
        await asyncio.get_running_loop().run_in_executor(worker, _nothing)


def _nothing() -> None:
    """The work that a scripted engine does on its worker."""
