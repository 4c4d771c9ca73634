"""The target: a torch model that verifies the passes of many sessions, with early exits inside them.

When the device becomes free, all that waits runs as one forward (``turns``, ``batching``) on the device's thread
(``target_pass``). An exit is read in the middle of it, and its reading goes to the event loop while the later
layers run. Nothing is ever run twice.

What a forward writes counts only once it is back on the loop; so one that fails or is cancelled leaves
nothing but rows that the next one overwrites.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import inf

from foredraft.engines.blocks import BLOCK_ROWS, BlockPool, Text
from foredraft.engines.captured import capture
from foredraft.engines.engine_worker import EngineWorker
from foredraft.engines.exact import is_exact
from foredraft.engines.kv_memory import KvMemory
from foredraft.engines.scene import Scene
from foredraft.engines.sight import Picture, Sight
from foredraft.engines.target_pass import Call, ExitReader, ignore
from foredraft.engines.torch_model import LoadedModel
from foredraft.engines.turns import Turns
from foredraft.engines.worker import first_line
from foredraft.errors import ConfigError, ModelError, RefusedError
from foredraft.protocol import ports
from foredraft.protocol.messages import INTERNAL, INVALID, TOO_LONG
from foredraft.protocol.ports import Load, Pass, Prediction, TargetCard, Verdict
from foredraft.protocol.sampling import Sampling

_CHUNKS = {"cpu": 128}
"""Rows from which on more of them at once take no less time each; a GPU wants more."""


class TorchTarget:
    """One model on one device, serving many sessions at once.

    ``cache_bytes``: what the caches of all sessions may take, and what is kept of those that are over.
    ``prefill_chunk``: by how many rows of long prompts a forward may delay others; by default as the device likes it.
    ``exact``: on, off, or auto: whether texts are equal to the bit whatever shares a forward (``exact``).
    ``prefix_cache``: whether beginnings that texts have in common are run once, and found again later.
    """

    def __init__(
        self,
        model: LoadedModel,
        exits: ExitReader | None = None,
        *,
        cache_bytes: int = 2 << 30,
        max_slots: int = 64,
        retry_after_s: float = 1.0,
        max_pass_nodes: int = 32,
        prefill_chunk: int | None = None,
        exact: str = "off",
        prefix_cache: bool = True,
    ) -> None:
        self.model, self.exits = model, exits
        self.exact = is_exact(model, exact)
        rows = cache_bytes // model.kv.row_bytes
        if rows < BLOCK_ROWS:
            raise ConfigError(
                f"cache_bytes {cache_bytes} hold {rows} tokens of {model.folder.name!r}: "
                f"give {BLOCK_ROWS * model.kv.row_bytes} or more"
            )
        self.pool = BlockPool(rows, max_slots, retry_after_s, prefix_cache=prefix_cache)
        try:
            self.memory = KvMemory(model.kv, self.pool.count * BLOCK_ROWS + 1, model.device)
        except RuntimeError as error:  # an accelerator gives the memory at once, a CPU when it is written
            raise ConfigError(
                f"caches of {cache_bytes / 2**30:.1f} GiB do not fit beside the weights ({first_line(error)}): "
                "lower cache_bytes (--cache-gib), or take a smaller type or model"
            ) from error
        chunk = prefill_chunk or _CHUNKS.get(model.device.type, 512)
        captured = None if self.exact else capture(model, self.memory, exits.layers if exits else ())
        self._decoder = EngineWorker("images")
        self.turns = Turns(model, exits, self.memory, chunk, exact=self.exact, captured=captured)
        self._card = TargetCard(
            model_digest=model.run_digest,
            tokenizer_digest=model.tokenizer_digest,
            vocab_size=model.vocab_size,
            context=model.context,
            layers=len(model.layers),
            exits=exits.layers if exits else (),
            max_pass_nodes=max_pass_nodes,
            prefill_chunk=chunk,
            stop_tokens=model.stop_tokens,
            exact=self.exact,
            rejects=True,
        )

    @property
    def card(self) -> TargetCard:
        """What it is."""
        return self._card

    @property
    def load(self) -> Load:
        """How busy it is."""
        held = self.pool.held_rows - self.pool.idle_rows
        return Load(self.turns.waiting, self.turns.batch, held / (self.pool.count * BLOCK_ROWS))

    def divide(self, weight_of: Callable[[str], float], cache_of: Callable[[str], int]) -> None:
        """Divide the device by these weights, and the cache so that each owner has at most so many tokens; 0: any."""
        self.turns.shares.weight_of, self.pool.most_of = weight_of, cache_of

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> "TorchSlot":
        """A place for a session over ``tokens``. What is held of their beginning for the same owner is shared.

        Raises RefusedError: busy, invalid (a token id outside the vocabulary), too_long.
        """
        self.check(tokens, len(tokens))
        return TorchSlot(self, self.pool.open(tokens, owner), sampling)

    @property
    def image_token(self) -> int | None:
        """The id that holds an image's place in a text; None for a model without eyes."""
        return self.model.sight.image_token if self.model.sight is not None else None

    async def look(self, image: bytes) -> Picture:
        """Look at an encoded image: it is decoded beside the device, and run through the model's eyes on it.

        Raises ImageError, RefusedError("busy").
        """
        sight = self._eyes()
        inputs = await self._decoder.run(partial(sight.read, image))
        return await self.turns.job(partial(sight.look, inputs))

    async def slot_seeing(
        self, pictures: Sequence[ports.Picture], tokens: Sequence[int], sampling: Sampling, owner: str = ""
    ) -> "TorchSlot":
        """As ``slot``, for a text with images in it, in their order. Raises RefusedError."""
        self.check(tokens, len(tokens))
        own = [picture for picture in pictures if isinstance(picture, Picture)]
        scene = Scene(self._eyes(), tokens, own)
        return TorchSlot(self, self.pool.open(scene.names(0, tokens), owner), sampling, scene)

    def _eyes(self) -> Sight:
        if self.model.sight is None:
            raise RefusedError(INVALID, f"{self.model.folder.name!r} sees no images")
        return self.model.sight

    def check(self, tokens: Sequence[int], end: int) -> None:
        """Raise RefusedError for ids outside the vocabulary, or when a text of ``end`` tokens is too long."""
        wrong = self.model.outside(tokens)
        if wrong:
            raise RefusedError(INVALID, wrong)
        if end > self.model.context:
            raise RefusedError(TOO_LONG, f"{end} tokens are more than the context of {self.model.context}")

    async def close(self) -> None:
        """Let the forward in flight end, then free the threads and the caches."""
        await self._decoder.close()
        await self.turns.close()
        self.pool.clear()
        if self.model.ranks is not None:
            self.model.ranks.leave()


class TorchSlot:
    """One session's place on the target: its text in the cache, its images and its sampling."""

    def __init__(self, target: TorchTarget, text: Text, sampling: Sampling, scene: Scene | None = None) -> None:
        self._target, self._text, self._sampling, self._scene = target, text, sampling, scene
        self._last: Pass | None = None
        self._calls: set[Call] = set()
        self._open = True
        self._due_s = inf

    def wanted_by(self, due_s: float) -> None:
        """What it is asked from now on is of no use after ``due_s`` of the loop's clock; inf: whenever."""
        self._due_s = due_s

    @property
    def cached(self) -> int:
        """How many leading tokens of the text the cache holds."""
        return len(self._text.tokens)

    async def prefill(self, tokens: Sequence[int]) -> float:
        """Run ``tokens`` through the model, cache only, chunk by chunk; the seconds on the device."""
        if not tokens:
            return 0.0
        self._make_room(tokens, self.cached + len(tokens), len(tokens))
        self._last = None
        _, _, device_s = await self._run(Call(self._names(tokens), None, self._sampling, ignore, self._scene))
        return device_s

    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        """Run one pass. ``on_exit`` is called on the loop while later layers still run.

        Afterwards the cache holds the trunk; ``keep`` says which nodes stay. A cancelled pass
        leaves the device as soon as nobody else shares its forward, and the cache as it was before.
        Raises RefusedError: invalid, too_long, busy (the cache cannot grow, or the device has no memory left).
        """
        self._refuse_malformed(batch)
        depths = [1] * len(batch.tokens)
        for node, parent in enumerate(batch.parents):
            depths[node] = 1 if parent < 0 else depths[parent] + 1
        tip = self.cached + len(batch.trunk)
        self._make_room(batch.trunk + batch.tokens, tip + max(depths, default=0), len(batch.trunk + batch.tokens))
        trunk = self._names(batch.trunk)
        prediction, queue_s, pass_s = await self._run(Call(trunk, batch, self._sampling, on_exit, self._scene))
        if prediction is None:
            raise ModelError("a pass ended without a verdict")
        self._last = batch
        return Verdict(prediction, queue_s, pass_s)

    def _names(self, tokens: Sequence[int]) -> Sequence[int]:
        """What the text has in common with others goes by these (``Scene``)."""
        return tokens if self._scene is None else self._scene.names(self.cached, tokens)

    async def _run(self, call: Call) -> tuple[Prediction | None, float, float]:
        self._calls.add(call)
        try:
            return await self._target.turns.run(call, self._text, self._due_s)
        finally:
            self._calls.discard(call)

    def _make_room(self, tokens: Sequence[int], end: int, rows: int) -> None:
        """Set memory aside for ``rows`` rows of ``tokens``; the text then reaches to ``end``."""
        if not self._open:
            raise RefusedError(INTERNAL, "the slot is closed")
        self._target.check(tokens, end)
        self._text.reserve(self.cached + rows)

    def _refuse_malformed(self, batch: Pass) -> None:
        card = self._target.card
        if not batch.trunk:
            raise RefusedError(INVALID, "a pass needs the tip of the text")
        if len(batch.tokens) > card.max_pass_nodes:
            raise RefusedError(INVALID, f"{len(batch.tokens)} nodes in a pass; at most {card.max_pass_nodes}")
        if len(batch.parents) != len(batch.tokens) or any(
            not -1 <= parent < node for node, parent in enumerate(batch.parents)
        ):
            raise RefusedError(INVALID, f"parents {batch.parents} make no tree of {len(batch.tokens)} nodes")
        if batch.masks and len(batch.masks) != len(batch.tokens) + 1:
            raise RefusedError(INVALID, f"{len(batch.masks)} masks for a tip and {len(batch.tokens)} nodes")
        if batch.trials and len(batch.trials) != len(batch.tokens) + 1:
            raise RefusedError(INVALID, f"{len(batch.trials)} trials for a tip and {len(batch.tokens)} nodes")
        unknown = set(batch.exits) - set(card.exits)
        if unknown:
            raise RefusedError(INVALID, f"no exit after layers {sorted(unknown)}; there are {list(card.exits)}")

    def keep(self, nodes: Sequence[int]) -> None:
        """Of the last pass, keep these nodes (indices, a path from the tip down). Never waits."""
        if not nodes:
            return
        if self._last is None or [self._last.parents[node] for node in nodes] != [-1, *nodes[:-1]]:
            raise ValueError(f"{list(nodes)} is no path of the last pass")
        text, start = self._text, self.cached
        sources = [text.row(start + node) for node in nodes]
        self._target.memory.move_later(sources, [text.row(start + place) for place in range(len(nodes))])
        text.extend([self._last.tokens[node] for node in nodes])
        self._last = None

    def close(self) -> None:
        """Give the place up; what it held stays for a resume until the memory is wanted. Never waits."""
        if self._open:
            self._open = False
            for call in self._calls:
                call.cancelled = True
            self._target.pool.close(self._text)
