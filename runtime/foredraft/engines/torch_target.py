"""The target: a torch model that verifies passes, with early exits inside them, for many slots.

A pass runs the layers in segments on the device's worker thread: up to the first wanted exit,
then to the next, and so on to the end. After a segment its exit head is read and the reading
goes to the event loop while the worker is already on the later layers. Nothing is ever run twice.

What a pass writes counts only once its verdict is back on the loop; so a pass that fails or is
cancelled leaves nothing but rows that the next one overwrites.
"""

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from foredraft.engines.cache_pool import CachePool, Held
from foredraft.engines.device import fine_clock
from foredraft.engines.flat_cache import FlatCache, row_bytes
from foredraft.engines.target_pass import ExitReader, Place, TargetPass, run_trunk
from foredraft.engines.torch_model import LoadedModel
from foredraft.engines.worker import DeviceWorker
from foredraft.errors import ModelError, RefusedError
from foredraft.protocol.messages import INTERNAL, INVALID, TOO_LONG
from foredraft.protocol.ports import Pass, Prediction, TargetCard, Verdict
from foredraft.protocol.sampling import Sampling

_Result = TypeVar("_Result")


class TorchTarget:
    """One model on one device, serving many sessions in turn.

    ``cache_bytes``: what the caches of all sessions may take, idle ones included. ``idle_s``: how long
    a cache waits for a resume.
    """

    def __init__(
        self,
        model: LoadedModel,
        exits: ExitReader | None = None,
        *,
        cache_bytes: int = 2 << 30,
        max_slots: int = 64,
        idle_s: float = 300.0,
        retry_after_s: float = 1.0,
        max_pass_nodes: int = 32,
        prefill_chunk: int = 512,
    ) -> None:
        self.model, self.exits = model, exits
        self._worker = DeviceWorker("target")
        self.pool: CachePool[FlatCache] = CachePool(
            lambda: FlatCache(model.kv_shape, model.dtype, model.device),
            row_bytes(model.kv_shape, model.dtype),
            cache_bytes,
            max_slots,
            idle_s,
            retry_after_s,
        )
        self._card = TargetCard(
            model_digest=model.digest,
            tokenizer_digest=model.tokenizer_digest,
            vocab_size=model.vocab_size,
            context=model.context,
            layers=len(model.layers),
            exits=exits.layers if exits else (),
            max_pass_nodes=max_pass_nodes,
            prefill_chunk=prefill_chunk,
            stop_tokens=model.stop_tokens,
        )

    @property
    def card(self) -> TargetCard:
        """What it is."""
        return self._card

    async def slot(self, tokens: Sequence[int], sampling: Sampling) -> "TorchSlot":
        """A place for a session over ``tokens``. An idle cache that shares a prefix with them is reused.

        Raises RefusedError: busy, invalid (a token id outside the vocabulary), too_long.
        """
        self.check(tokens, len(tokens))
        return TorchSlot(self, self.pool.take(tokens), sampling)

    async def run(self, job: Callable[[], _Result]) -> tuple[_Result, float, float]:
        """Run ``job`` on the device: its result, the seconds that it waited, and the seconds that it took."""
        clock = fine_clock(asyncio.get_running_loop())
        submitted_s = clock()

        def timed() -> tuple[_Result, float, float]:
            began_s = clock()
            result = job()
            return result, began_s - submitted_s, clock() - began_s

        return await self._worker.run(timed)

    def check(self, tokens: Sequence[int], end: int) -> None:
        """Raise RefusedError for ids outside the vocabulary, or when a text of ``end`` tokens is too long."""
        wrong = self.model.outside(tokens)
        if wrong:
            raise RefusedError(INVALID, wrong)
        if end > self.model.context:
            raise RefusedError(TOO_LONG, f"{end} tokens are more than the context of {self.model.context}")

    async def close(self) -> None:
        """Let the pass in flight end, then free the thread and the caches."""
        await self._worker.close()
        self.pool.clear()


class TorchSlot:
    """One session's place on the target: its cache and its sampling."""

    def __init__(self, target: TorchTarget, held: Held[FlatCache], sampling: Sampling) -> None:
        self._target, self._held, self._sampling = target, held, sampling
        self._last: Pass | None = None
        self._open = True

    @property
    def cached(self) -> int:
        """How many leading tokens of the text the cache holds."""
        return len(self._held.text)

    async def prefill(self, tokens: Sequence[int]) -> float:
        """Run ``tokens`` through the model, cache only, chunk by chunk; the seconds on the device."""
        target, seconds = self._target, 0.0
        for first in range(0, len(tokens), target.card.prefill_chunk):
            chunk = tuple(tokens[first : first + target.card.prefill_chunk])
            job = functools.partial(run_trunk, target.model, self._place(chunk, self.cached + len(chunk)), chunk)
            _, _, chunk_s = await target.run(job)
            self._held.text.extend(chunk)
            seconds += chunk_s
        self._last = None
        return seconds

    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        """Run one pass. ``on_exit`` is called on the loop while later layers still run.

        Afterwards the cache holds the trunk; ``keep`` says which nodes stay. A cancelled pass
        leaves the device at the end of the segment in flight, and the cache as it was before.
        Raises RefusedError: invalid, too_long, busy (the cache cannot grow).
        """
        loop = asyncio.get_running_loop()
        predictions: deque[Prediction] = deque()

        def deliver() -> None:
            while predictions and not job.cancelled:
                on_exit(predictions.popleft())

        def post(prediction: Prediction) -> None:
            predictions.append(prediction)
            loop.call_soon_threadsafe(deliver)

        self._refuse_malformed(batch)
        job = TargetPass(self._target.model, self._target.exits, batch, self._sampling, post)
        end = self.cached + len(batch.trunk) + max(job.depths, default=0)
        place = self._place(batch.trunk + batch.tokens, end)
        try:
            prediction, queue_s, pass_s = await self._target.run(functools.partial(job.run, place))
        except asyncio.CancelledError:
            job.cancelled = True
            raise
        if prediction is None:
            raise ModelError("a pass ended without a verdict")
        deliver()  # a loop that runs jobs inline calls back only after this coroutine waits
        self._held.text.extend(batch.trunk)
        self._last = batch
        return Verdict(prediction, queue_s, pass_s)

    def _place(self, tokens: tuple[int, ...], end: int) -> Place:
        """Where ``tokens`` go, with memory set aside for them; the text then reaches to ``end``."""
        if not self._open:
            raise RefusedError(INTERNAL, "the slot is closed")
        self._target.check(tokens, end)
        self._target.pool.charge(self._held, self.cached + len(tokens))
        return Place(self._held.cache, self.cached, self._held.rows)

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
        unknown = set(batch.exits) - set(card.exits)
        if unknown:
            raise RefusedError(INVALID, f"no exit after layers {sorted(unknown)}; there are {list(card.exits)}")

    def keep(self, nodes: Sequence[int]) -> None:
        """Of the last pass, keep these nodes (indices, a path from the tip down). Never waits."""
        if not nodes:
            return
        if self._last is None or [self._last.parents[node] for node in nodes] != [-1, *nodes[:-1]]:
            raise ValueError(f"{list(nodes)} is no path of the last pass")
        start = self.cached
        self._held.cache.gather_later(start, [start + node for node in nodes])
        self._held.text.extend(self._last.tokens[node] for node in nodes)
        self._last = None

    def close(self) -> None:
        """Give the place up; the engine may keep the cache for a resume. Never waits."""
        if self._open:
            self._open = False
            self._target.pool.give_back(self._held)
