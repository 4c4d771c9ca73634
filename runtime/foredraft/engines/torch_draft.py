"""The drafter: a torch model that expands several nodes of the draft tree in one forward.

Candidates are ordered by the scores that the target will use, its position-keyed noise
included (``engines.noise``): with the same noise, a good draft is right even when the text is random.
"""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from foredraft.engines.kv_memory import KvMemory
from foredraft.engines.noise import best
from foredraft.engines.rows import Part, Rows
from foredraft.engines.scene import Scene
from foredraft.engines.sight import Picture
from foredraft.engines.torch_model import LoadedModel
from foredraft.engines.tree_cache import Step, TreeCache
from foredraft.engines.tree_drafter import Begun, TreeDrafter
from foredraft.engines.worker import DeviceWorker
from foredraft.errors import ImageError, RefusedError
from foredraft.protocol.anchor import Anchor
from foredraft.protocol.ports import Guess
from foredraft.protocol.sampling import Sampling

log = logging.getLogger("foredraft.edge")


class TorchDrafter(TreeDrafter):
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
        super().__init__(max_nodes_per_step, worker or DeviceWorker("draft"), owns_worker=worker is None)
        self.model = model
        self._chunk = prefill_chunk
        self._tree = TreeCache()
        self._cache = KvMemory(model.kv, 0, model.device)
        self._scene: Scene | None = None
        self._pictures: dict[bytes, Picture] = {}  # of the latest text

    @property
    def tokenizer_digest(self) -> str:
        """Digest of the tokenizer whose ids it speaks."""
        return self.model.tokenizer_digest

    @property
    def context(self) -> int:
        """The longest text that it takes, in tokens."""
        return self.model.context

    def outside(self, tokens: Sequence[int]) -> str:
        """What is wrong with token ids that the model does not know; empty if nothing is."""
        return self.model.outside(tokens)

    async def close(self) -> None:
        """Let the step in flight end, then free the cache, and the thread if it is its own."""
        await super().close()
        self._cache = KvMemory(self.model.kv, 0, self.model.device)

    # From here on: on the worker's thread.

    def _begin(self, begun: Begun) -> None:
        self._scene = self._seen_in(begun) if begun.images else None
        names = begun.words if self._scene is None else self._scene.names(0, begun.tokens)
        self._tree.begin(begun.tokens, names)

    def _seen_in(self, begun: Begun) -> Scene | None:
        """The text's images as the draft sees them; None without eyes, and where they become something else here."""
        sight = self.model.sight
        if sight is None or sight.image_token != begun.image_token:
            return None
        try:
            pictures = [self._pictures.get(image) or sight.look(sight.read(image)) for image in begun.images]
            scene = Scene(sight, begun.tokens, pictures)
        except (RefusedError, ImageError) as error:
            log.warning("drafting without the images: %s", error)
            return None
        self._pictures = dict(zip(begun.images, pictures, strict=True))
        return scene

    def _grow(self, tokens: tuple[int, ...]) -> None:
        first, rows = self._tree.advance(tokens)
        self._cache.move_later(rows, range(first, first + len(rows)))

    def _run_ahead(self) -> bool:
        trunk = self._tree.trunk()
        if len(trunk) <= self._chunk:
            return False
        self._run_trunk(trunk[: self._chunk])
        return True

    def _root(self) -> Anchor:
        return self._tree.anchor

    def _run(self, part: Part) -> Tensor:
        """One forward: ``[rows, width]``."""
        capacity = self._cache.rows
        self._cache.settle()
        self._cache.grow(part.end if part.end <= capacity else max(part.end, 2 * capacity, 256), self._tree.used)
        return self.model.run(Rows(self._cache, [part]))

    def _run_trunk(self, tokens: list[int]) -> None:
        start = self._tree.used
        end = start + len(tokens)
        self._run(Part(self._ids(tokens), [(0, end)], start, end, scene=self._scene))
        self._tree.fed(len(tokens))

    def _ids(self, names: Sequence[int]) -> Sequence[int]:
        return names if self._scene is None else self._scene.tokens(names)

    def _expand(self, paths: list[list[Step]], width: int, sampling: Sampling) -> list[list[Guess]]:
        feed = self._tree.plan(paths)
        model, start, device = self.model, self._tree.used, self.model.device
        tokens = [*self._ids(feed.trunk), *feed.tokens]
        positions = [row.position for row in feed.rows]
        part = Part(
            tokens,
            [(0, start + len(tokens))],
            start,
            self._tree.base,
            self._tree.tree_positions + positions,
            [row.sees for row in feed.rows],
            self._scene,
        )
        hidden = self._run(part)
        self._tree.ran(feed)
        rows = torch.tensor([len(feed.trunk) + row for row in feed.asked], device=device)
        left_out = self._tree.left_out
        predicted = torch.tensor([positions[row] + left_out + 1 for row in feed.asked], device=device)
        return _best(model.output(hidden[rows]), predicted, width, sampling)


def _best(logits: Tensor, positions: Tensor, width: int, sampling: Sampling) -> list[list[Guess]]:
    """The ``width`` best tokens of each row, those that the filters drop left out."""
    found = best(logits, positions, sampling, count=width)
    probabilities = (found.values - found.total.unsqueeze(-1)).exp()
    return [
        [Guess(token, probability) for token, probability in zip(*row, strict=True) if probability > 0.0]
        for row in zip(found.tokens.tolist(), probabilities.tolist(), strict=True)
    ]
