"""The drafter on llama.cpp: a GGUF model that expands several nodes of the draft tree in one decode, without torch.

Like ``torch_draft``, whose guesses those of the same weights equal: the same order, the same noise, drawn with numpy.
"""

from collections.abc import Sequence

from foredraft.engines.branches import Branches, Run
from foredraft.engines.engine_worker import EngineWorker
from foredraft.engines.llama_model import LlamaContext, LlamaModel
from foredraft.engines.numpy_guesses import Floats, best
from foredraft.engines.tree_cache import Step
from foredraft.engines.tree_drafter import Begun, TreeDrafter
from foredraft.errors import ModelError
from foredraft.protocol.anchor import Anchor
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling


class LlamaDrafter(TreeDrafter):
    """One session's drafter. ``worker``: the thread that it shares with other drafters; None: one of its own.

    The memory of its cache is taken by the first step. Probabilities are as those of ``TorchDrafter``.
    """

    def __init__(self, model: LlamaModel, *, max_nodes_per_step: int = 16, worker: EngineWorker | None = None) -> None:
        most = min(max_nodes_per_step, model.options.branches)
        super().__init__(most, worker or EngineWorker("draft"), owns_worker=worker is None)
        self.model = model
        self._loaded: LlamaContext | None = None
        self._tree: Branches | None = None

    @property
    def tokenizer_digest(self) -> str:
        """Digest of the tokenizer that its vocabulary was compared with; empty before."""
        return self.model.tokenizer_digest

    @property
    def decoding_s(self) -> float:
        """Seconds in llama.cpp's own decode so far."""
        return 0.0 if self._loaded is None else self._loaded.decoding_s

    @property
    def context(self) -> int:
        """The longest text that it takes, in tokens."""
        return self.model.context

    def outside(self, tokens: Sequence[int]) -> str:
        """What is wrong with token ids that the model does not know; empty if nothing is."""
        return self.model.outside(tokens)

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A text begins with these tokens. What the cache holds of them stays; the rest is run by the next step.

        Raises ModelError for a token id outside the vocabulary, and for a text that its context does not hold.
        """
        if len(tokens) > self.context:
            raise ModelError(
                f"a text of {len(tokens)} tokens is longer than the draft's context of {self.context}; "
                "ask for more with --draft-option context=N, as far as the model goes"
            )
        await super().begin(tokens, sampling)

    async def close(self) -> None:
        """Let the step in flight end, then free the cache, and the thread if it is its own."""
        if self._loaded is not None:
            await self._worker.run(self._loaded.close)
            self._loaded = self._tree = None
        await super().close()

    # From here on: on the worker's thread.

    def _ready(self) -> tuple[LlamaContext, Branches]:
        if self._loaded is None or self._tree is None:
            self._loaded = LlamaContext(self.model)
            self._tree = Branches(self._loaded, self._loaded.sequences, self._loaded.cells)
        return self._loaded, self._tree

    def _begin(self, begun: Begun) -> None:
        self._ready()[1].begin(begun.tokens, begun.words)

    def _grow(self, tokens: tuple[int, ...]) -> None:
        self._ready()[1].advance(tokens)

    def _run_ahead(self) -> bool:
        _, tree = self._ready()
        ahead = len(tree.trunk()) > self.model.options.batch
        if ahead:
            self._run(tree.run_ahead(self.model.options.batch))
        return ahead

    def _root(self) -> Anchor:
        return self._ready()[1].anchor

    def _expand(self, paths: list[list[Step]], width: int, sampling: Sampling) -> list[list[Guess]]:
        tree = self._ready()[1]
        run = tree.plan(paths)
        predicted = [run.rows[row].position + tree.left_out + 1 for row in run.asked]
        return best(self._run(run)[:, : self.model.spoken], predicted, width, sampling)

    def _run(self, run: Run) -> Floats:
        context, tree = self._ready()
        try:
            logits = context.decode(run.rows, run.asked)
        except ModelError:
            tree.lost()
            raise
        tree.ran(run)
        return logits
