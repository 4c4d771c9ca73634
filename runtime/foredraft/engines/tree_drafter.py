"""What drafters of models have in common: news in order, steps on a worker's thread, and what is refused.

Commits are told on the event loop, which never waits; the worker's thread applies them before the step that was
asked for after them. How a step runs is the engine's: ``torch_draft``, ``llama_draft``.
"""

import functools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from foredraft.engines.engine_worker import EngineWorker
from foredraft.engines.tree_cache import Step
from foredraft.errors import ModelError
from foredraft.protocol.anchor import Anchor
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node


@dataclass(frozen=True, slots=True)
class Begun:
    """A text begins. ``images``: those in it, encoded; their places are filled with ``image_token``."""

    tokens: tuple[int, ...]
    images: tuple[bytes, ...] = ()
    image_token: int | None = None

    @property
    def words(self) -> list[int]:
        """The tokens without the places of images, which say nothing to whom has no eyes."""
        return [token for token in self.tokens if token != self.image_token]


_News = Begun | tuple[int, ...]
"""A text begins, or grew by these tokens."""


class TreeDrafter(ABC):
    """One session's drafter. ``worker``: the thread that it shares with others, unless it owns it."""

    def __init__(self, max_nodes_per_step: int, worker: EngineWorker, *, owns_worker: bool) -> None:
        self._max_nodes = max_nodes_per_step
        self._worker, self._owns_worker = worker, owns_worker
        self._news: deque[_News] = deque()  # told on the loop, applied on the worker, in order
        self._told = self._applied = 0
        self._sampling = Sampling()
        self._wrong = "no text has begun"
        self._seen: tuple[tuple[bytes, ...], int | None] = ((), None)

    @property
    @abstractmethod
    def tokenizer_digest(self) -> str:
        """Digest of the tokenizer whose ids it speaks; empty where that is not known."""

    @property
    @abstractmethod
    def context(self) -> int:
        """The longest text that it takes, in tokens."""

    @abstractmethod
    def outside(self, tokens: Sequence[int]) -> str:
        """What is wrong with token ids that the model does not know; empty if nothing is."""

    @property
    def max_nodes_per_step(self) -> int:
        """How many nodes one step may expand."""
        return self._max_nodes

    def see(self, images: Sequence[bytes], image_token: int) -> None:
        """The text that begins next has these images; a drafter without eyes passes over their places."""
        self._seen = tuple(images), image_token

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A text begins with these tokens. What the cache holds of them stays; the rest is run by the next step.

        Raises ModelError for a token id outside the vocabulary.
        """
        begun, self._seen = Begun(tuple(tokens), *self._seen), ((), None)
        self._wrong = self.outside(begun.words) if begun.words else "an empty text"
        if self._wrong:
            raise ModelError(self._wrong)
        self._sampling = sampling
        self._tell(begun)

    def advance(self, tokens: Sequence[int]) -> None:
        """The committed text grew by ``tokens``. Never waits: the cache follows at the next step."""
        self._wrong = self._wrong or self.outside(tokens)
        if tokens:
            self._tell(tuple(tokens))

    def _tell(self, news: _News) -> None:
        self._news.append(news)
        self._told += 1

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """For each node up to ``width`` guesses, best first; none for dead nodes and at the context's end.

        Raises ModelError when the text has token ids that the model does not know.
        """
        wrong = self._wrong or self.outside([node.token for node in nodes])
        if wrong:
            raise ModelError(wrong)
        live = [place for place, node in enumerate(nodes) if node.alive and node.position <= self.context]
        if len(live) > self._max_nodes:
            raise ModelError(f"{len(live)} nodes in a draft step; at most {self._max_nodes}")
        guesses: list[list[Guess]] = [[] for _ in nodes]
        if live and width > 0:
            paths = [_path(nodes[place]) for place in live]
            step = functools.partial(self._step, self._told, paths, width, self._sampling)
            found = None
            while found is None:
                found = await self._worker.run(step)
            for place, best in zip(live, found, strict=True):
                guesses[place] = best
        return guesses

    async def close(self) -> None:
        """Let the step in flight end, then the thread, if it is its own."""
        if self._owns_worker:
            await self._worker.close()

    # From here on: on the worker's thread.

    def _step(self, told: int, paths: list[list[Step]], width: int, sampling: Sampling) -> list[list[Guess]] | None:
        """Follow the news up to the ``told``-th, then run one forward; None while committed text is left to run."""
        while self._applied < told:
            news = self._news.popleft()
            if isinstance(news, Begun):
                self._begin(news)
            else:
                self._grow(news)
            self._applied += 1
        if self._run_ahead():
            return None
        root = self._root()
        known = [place for place, path in enumerate(paths) if path[0][0] == root]
        guesses: list[list[Guess]] = [[] for _ in paths]
        if known:
            found = self._expand([paths[place] for place in known], width, sampling)
            for place, best in zip(known, found, strict=True):
                guesses[place] = best
        return guesses

    @abstractmethod
    def _begin(self, begun: Begun) -> None:
        """Another text: what the cache holds of its beginning stays."""

    @abstractmethod
    def _grow(self, tokens: tuple[int, ...]) -> None:
        """The text grew by ``tokens``: the cache follows."""

    @abstractmethod
    def _run_ahead(self) -> bool:
        """Run a chunk of committed text, if there is more of it than one forward takes; whether there was."""

    @abstractmethod
    def _root(self) -> Anchor:
        """The whole text, as far as the news go: the root of its tree."""

    @abstractmethod
    def _expand(self, paths: list[list[Step]], width: int, sampling: Sampling) -> list[list[Guess]]:
        """Run the nodes at the ends of these paths from the root; the best guesses at what follows each."""


def _path(node: Node) -> list[Step]:
    """The steps from the root, itself included, down to ``node``."""
    steps: list[Step] = []
    step: Node | None = node
    while step is not None:
        steps.append((step.anchor, step.token))
        step = step.parent
    steps.reverse()
    return steps
