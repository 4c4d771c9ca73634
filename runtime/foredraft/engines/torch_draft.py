"""The drafter: a torch model that expands several nodes of the draft tree in one forward.

Candidates are ordered by the scores that the target will use, its position-keyed noise
included (``engines.noise``): with the same noise, a good draft is right even when the text is random.
"""

import functools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foredraft.engines.kv_memory import KvMemory
from foredraft.engines.noise import best
from foredraft.engines.rows import Part, Rows
from foredraft.engines.torch_model import LoadedModel
from foredraft.engines.tree_cache import Feed, Step, TreeCache
from foredraft.engines.worker import DeviceWorker
from foredraft.errors import ModelError
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node


@dataclass(frozen=True, slots=True)
class _Begin:
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Advance:
    tokens: tuple[int, ...]


class TorchDrafter:
    """One session's drafter. ``prefill_chunk``: most committed tokens in one forward, so that a step stays short.

    ``worker``: the thread that it shares with other drafters, which somebody else closes; None: one of its own.

    A guess's probability is the softmax, over the vocabulary, of the scores that order the guesses: at
    temperature 0 the model's own distribution, else that of logits / temperature + noise, which is right if
    the target's scores differ from the draft's by independent Gumbel errors. An estimate, to be calibrated.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        max_nodes_per_step: int = 16,
        prefill_chunk: int = 256,
        worker: DeviceWorker | None = None,
    ) -> None:
        self.model = model
        self._max_nodes, self._chunk = max_nodes_per_step, prefill_chunk
        self._owns_worker = worker is None
        self._worker = worker or DeviceWorker("draft")
        self._news: deque[_Begin | _Advance] = deque()  # told on the loop, applied on the worker, in order
        self._told = self._applied = 0
        self._sampling = Sampling()
        self._wrong = "no text has begun"
        self._tree = TreeCache()
        self._cache = KvMemory(model.kv, 0, model.device)

    @property
    def tokenizer_digest(self) -> str:
        """Digest of the tokenizer whose ids it speaks."""
        return self.model.tokenizer_digest

    @property
    def max_nodes_per_step(self) -> int:
        """How many nodes one step may expand."""
        return self._max_nodes

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A text begins with these tokens. What the cache holds of them stays; the rest is run by the next step.

        Raises ModelError for a token id outside the vocabulary.
        """
        self._wrong = self.model.outside(tokens) if tokens else "an empty text"
        if self._wrong:
            raise ModelError(self._wrong)
        self._sampling = sampling
        self._tell(_Begin(tuple(tokens)))

    def advance(self, tokens: Sequence[int]) -> None:
        """The committed text grew by ``tokens``. Never waits: the cache follows at the next step."""
        self._wrong = self._wrong or self.model.outside(tokens)
        if tokens:
            self._tell(_Advance(tuple(tokens)))

    def _tell(self, news: _Begin | _Advance) -> None:
        self._news.append(news)
        self._told += 1

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """For each node up to ``width`` guesses, best first; none for dead nodes and at the context's end.

        Raises ModelError when the text has token ids that the model does not know.
        """
        if self._wrong:
            raise ModelError(self._wrong)
        wrong = self.model.outside([node.token for node in nodes])
        if wrong:
            raise ModelError(wrong)
        live = [place for place, node in enumerate(nodes) if node.alive and self._fits(node)]
        if len(live) > self._max_nodes:
            raise ModelError(f"{len(live)} nodes in a draft step; at most {self._max_nodes}")
        guesses: list[list[Guess]] = [[] for _ in nodes]
        if live and width > 0:
            step = functools.partial(
                self._step, self._told, [_path(nodes[place]) for place in live], width, self._sampling
            )
            found = None
            while found is None:
                found = await self._worker.run(step)
            for place, best in zip(live, found, strict=True):
                guesses[place] = best
        return guesses

    def _fits(self, node: Node) -> bool:
        return node.position <= self.model.context

    async def close(self) -> None:
        """Let the step in flight end, then free the cache, and the thread if it is its own."""
        if self._owns_worker:
            await self._worker.close()
        self._cache = KvMemory(self.model.kv, 0, self.model.device)

    # From here on: on the worker's thread.

    def _step(self, told: int, paths: list[list[Step]], width: int, sampling: Sampling) -> list[list[Guess]] | None:
        """Follow the news up to the ``told``-th, then run one forward; None while committed text is left to run."""
        self._follow(told)
        trunk = self._tree.trunk()
        if len(trunk) > self._chunk:
            self._run_trunk(trunk[: self._chunk])
            return None
        known = [place for place, path in enumerate(paths) if path[0][0] == self._tree.anchor]
        guesses: list[list[Guess]] = [[] for _ in paths]
        if known:
            feed = self._tree.plan([paths[place] for place in known])
            for place, best in zip(known, self._expand(feed, width, sampling), strict=True):
                guesses[place] = best
        return guesses

    def _follow(self, told: int) -> None:
        while self._applied < told:
            news = self._news.popleft()
            if isinstance(news, _Begin):
                self._tree.begin(news.tokens)
            else:
                first, rows = self._tree.advance(news.tokens)
                self._cache.move_later(rows, range(first, first + len(rows)))
            self._applied += 1

    def _run(self, part: Part) -> Tensor:
        """One forward: ``[rows, width]``."""
        capacity = self._cache.rows
        self._cache.settle()
        self._cache.grow(part.end if part.end <= capacity else max(part.end, 2 * capacity, 256), self._tree.used)
        return self.model.run(Rows(self._cache, [part]))

    def _run_trunk(self, tokens: list[int]) -> None:
        start = self._tree.used
        end = start + len(tokens)
        self._run(Part(tokens, [(0, end)], start, end))
        self._tree.fed(len(tokens))

    def _expand(self, feed: Feed, width: int, sampling: Sampling) -> list[list[Guess]]:
        """Run what ``feed`` says and read the guesses of the nodes that were asked for."""
        model, start, device = self.model, self._tree.used, self.model.device
        tokens = feed.trunk + feed.tokens
        positions = [row.position for row in feed.rows]
        part = Part(
            tokens,
            [(0, start + len(tokens))],
            start,
            self._tree.base,
            self._tree.tree_positions + positions,
            [row.sees for row in feed.rows],
        )
        hidden = self._run(part)
        self._tree.ran(feed)
        rows = torch.tensor([len(feed.trunk) + row for row in feed.asked], device=device)
        predicted = torch.tensor([positions[row] + 1 for row in feed.asked], device=device)
        return _best(model.output(hidden[rows]), predicted, width, sampling)


def _path(node: Node) -> list[Step]:
    """The steps from the root, itself included, down to ``node``."""
    steps: list[Step] = []
    step: Node | None = node
    while step is not None:
        steps.append((step.anchor, step.token))
        step = step.parent
    steps.reverse()
    return steps


def _best(logits: Tensor, positions: Tensor, width: int, sampling: Sampling) -> list[list[Guess]]:
    """The ``width`` best tokens of each row, those that the filters drop left out."""
    found = best(logits, positions, sampling, count=width)
    probabilities = (found.values - found.total.unsqueeze(-1)).exp()
    return [
        [Guess(token, probability) for token, probability in zip(*row, strict=True) if probability > 0.0]
        for row in zip(found.tokens.tolist(), probabilities.tolist(), strict=True)
    ]
