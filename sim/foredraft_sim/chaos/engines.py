"""The models of a world: a target whose text is known and whose cache is the real pool, and drafters that guess at it.

They take no time of their own; ``paced`` engines around them do.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from foredraft.engines.blocks import BlockPool, Text
from foredraft.errors import ModelError, RefusedError
from foredraft.profiles.compute import seconds
from foredraft.profiles.schema import DraftProfile, Line, Memory, Model, Range, TargetProfile
from foredraft.protocol.messages import BUSY, INTERNAL
from foredraft.protocol.ports import Guess, Pass, Prediction, TargetCard, Verdict
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node
from foredraft_sim.chaos.author import STOP_TOKENS, VOCABULARY, Author, after, luck_at, token_at

EXITS: Final = (2, 4)
LAYERS: Final = 6
CHUNK: Final = 64
PASS_NODES: Final = 32
MAX_SLOTS: Final = 16
RETRY_S: Final = 0.5

MEMORY, FORWARD, BUG = "memory", "forward", "bug"
_EXIT_RIGHT: Final = 0.75
_RANGE: Final = Range(new_tokens=(1, 1 << 20), context=(0, 1 << 30), batch=(1, 1 << 10))
CACHE_TOKENS: Final = 1 << 16
"""What the emulated device has room for, beside the pool's own bound."""

TARGET: Final = TargetProfile(
    kind="target",
    name="chaos-target",
    title="A target in a world of chaos",
    model=Model(name="chaos", layers=LAYERS),
    prefill=Line(base_s=0.02, per_token_s=0.001, range=_RANGE),
    target_pass=Line(base_s=0.02, per_token_s=0.002, range=_RANGE),
    memory=Memory(device_bytes=1 + CACHE_TOKENS, weights_bytes=1, cache_bytes_per_token=1),
)
DRAFT: Final = DraftProfile(
    kind="draft",
    name="chaos-draft",
    title="A draft in a world of chaos",
    model=Model(name="chaos", layers=2),
    draft_step=Line(base_s=0.008, per_token_s=0.002, range=_RANGE),
)


def pass_alone_s(rows: int) -> float:
    """Seconds of a pass of so many rows on a device of its own."""
    return seconds(TARGET.target_pass, rows, 0)


def prefill_alone_s(rows: int) -> float:
    """Likewise of a prefill."""
    return seconds(TARGET.prefill or TARGET.target_pass, rows, 0)


class ChaosTarget:
    """One model on one device. ``trouble``: what befalls its forwards at the moment, if anything does."""

    def __init__(self, model: str, rows: int) -> None:
        """``rows``: of the cache, in tokens."""
        self.model = model
        self.trouble = ""
        self.pool = BlockPool(rows, MAX_SLOTS, RETRY_S)
        self.card = TargetCard(
            model_digest=model,
            tokenizer_digest="chaos",
            vocab_size=VOCABULARY,
            context=rows,
            layers=LAYERS,
            exits=EXITS,
            max_pass_nodes=PASS_NODES,
            prefill_chunk=CHUNK,
            stop_tokens=STOP_TOKENS,
            rejects=True,  # its text is certain: what a draft proposes changes nothing
        )

    def divide(self, weight_of: Callable[[str], float], cache_of: Callable[[str], int]) -> None:
        """Divide the cache; the device is divided by what paces it."""
        self.pool.most_of = cache_of

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> "_Slot":
        """A place for a text. Raises RefusedError("busy")."""
        await asyncio.sleep(0)
        return _Slot(self, self.pool.open(tokens, owner), Author(self.model, sampling.seed))

    async def close(self) -> None:
        """Nothing to free."""

    def check(self) -> None:
        """Raise what the trouble of the moment is, as the thread of a torch device translates it."""
        if self.trouble == MEMORY:
            raise RefusedError(BUSY, "no memory is left on the device", RETRY_S)
        if self.trouble == FORWARD:
            raise ModelError("the model failed on its device: chaos")
        if self.trouble == BUG:
            raise RuntimeError("nobody thought of this")


class _Slot:
    """One text's place."""

    def __init__(self, target: ChaosTarget, text: Text, author: Author) -> None:
        self._target, self._text, self._author = target, text, author
        self._last: Pass | None = None
        self._open = True

    @property
    def cached(self) -> int:
        """How many tokens of the text the cache holds."""
        return len(self._text.tokens)

    async def prefill(self, tokens: Sequence[int]) -> float:
        """Take committed tokens."""
        self._reserve(len(tokens))
        self._target.check()
        self._text.extend(tokens)
        return 0.0

    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        """What the author says after the tip and each node, and what the exits think of it."""
        self._reserve(len(batch.trunk) + len(batch.tokens))
        self._target.check()
        state = self._author.state_of([*self._text.tokens, *batch.trunk])
        states = [state]
        for token, parent in zip(batch.tokens, batch.parents, strict=True):
            states.append(after(states[parent + 1], token))
        for layer in batch.exits:
            on_exit(_thought(layer, states))
        self._text.extend(batch.trunk)
        self._last = batch
        said = tuple(map(token_at, states))
        return Verdict(Prediction(LAYERS, said, (1.0,) * len(said)), 0.0, 0.0)

    def _reserve(self, rows: int) -> None:
        if not self._open:
            raise RefusedError(INTERNAL, "the slot is closed")
        self._text.reserve(self.cached + rows)

    def keep(self, nodes: Sequence[int]) -> None:
        """Keep a path of the last pass."""
        if self._last is None or [self._last.parents[node] for node in nodes] != [-1, *nodes[:-1]][: len(nodes)]:
            raise ValueError(f"{list(nodes)} is no path of the last pass")
        self._text.extend([self._last.tokens[node] for node in nodes])
        self._last = None

    def close(self) -> None:
        """Give the place up."""
        self._open = False
        self._target.pool.close(self._text)


def _thought(layer: int, states: Sequence[int]) -> Prediction:
    """What an exit says: often the truth, and how sure it is has little to do with it."""
    said = [token_at(state) if luck_at(state, layer) < _EXIT_RIGHT else state % VOCABULARY for state in states]
    return Prediction(layer, tuple(said), tuple(luck_at(state, layer + LAYERS) for state in states))


class ChaosDrafter:
    """Guesses right with a given probability; it knows the text only from what it was told."""

    tokenizer_digest = ""
    max_nodes_per_step = 4

    def __init__(self, model: str, right: float, on_close: Callable[["ChaosDrafter"], None]) -> None:
        self._model, self._right, self._on_close = model, right, on_close
        self._length = self._state = 0

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A text begins."""
        self._length, self._state = len(tokens), Author(self._model, sampling.seed).state_of(tokens)

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """Guesses below each node; none below what lies beside the text."""
        return [self._guesses(node, width) for node in nodes]

    def _guesses(self, node: Node, width: int) -> list[Guess]:
        path = node.path()
        if not node.alive or node.position - len(path) != self._length:
            return []
        state = self._state
        for above in path:
            state = after(state, above.token)
        best = token_at(state) if luck_at(state, LAYERS + 1) < self._right else (token_at(state) + 1) % VOCABULARY
        return [Guess((best + place) % VOCABULARY, self._right / (place + 1)) for place in range(width)]

    def advance(self, tokens: Sequence[int]) -> None:
        """The text grew."""
        for token in tokens:
            self._state = after(self._state, token)
        self._length += len(tokens)

    async def close(self) -> None:
        """It is given up."""
        self._on_close(self)
