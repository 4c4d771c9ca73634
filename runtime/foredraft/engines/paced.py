"""Engines that take as long as another device would: emulation by a hardware profile.

A wrapper lets an engine run, and holds back what it says until the profile's device would
have said it. Only the running loop's clock is used, so the same wrapper paces a real engine on
the wall clock, and emulates a device in simulated time around an engine that takes none.
Where the real call was slower than the profile, results leave late, and ``overruns`` says so.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from foredraft.engines.device import TICK_S, Device, Turn, Work
from foredraft.engines.pace import Outside, Overruns, Pace, Residual
from foredraft.errors import RefusedError
from foredraft.profiles.compute import pass_times, seconds
from foredraft.profiles.schema import DraftProfile, TargetProfile
from foredraft.protocol.averages import WIDTHS
from foredraft.protocol.messages import BUSY, INVALID
from foredraft.protocol.ports import (
    BesideImages,
    Divided,
    Drafter,
    Guess,
    Load,
    Pass,
    Picture,
    Prediction,
    Seeing,
    Slot,
    Target,
    TargetCard,
    Urgent,
    Verdict,
    eyes_of,
    load_of,
)
from foredraft.protocol.prefix import common_prefix
from foredraft.protocol.sampling import Sampling
from foredraft.protocol.tree import Node

RETRY_AFTER_S = 1.0

_TYPICAL_PASS = (5, 256)  # new tokens and context of the pass that a card tells the duration of


class _HeldReadings:
    """Predictions of the exits of a pass, each held back until its share of the turn is over, and let go in order."""

    def __init__(self, target: "PacedTarget", turn: Turn, on_exit: Callable[[Prediction], None]) -> None:
        self._device, self._pace, self._layers = target.device, target.pace, target.card.layers
        self._turn, self._on_exit = turn, on_exit
        self._held: deque[Prediction] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def _due_s(self, layer: int) -> float:
        turn = self._turn
        return turn.start_s + self._pace.share_after(layer, self._layers) * (turn.end_s - turn.start_s)

    def take(self, prediction: Prediction) -> None:
        """The engine's exit has spoken."""
        self._pace.note_late("segment", self._device.now() - self._due_s(prediction.layer))
        self._held.append(prediction)
        if self._timer is None:
            self._let_go()

    def _let_go(self) -> None:
        """Pass on what is due, and set a timer for the rest."""
        self._timer = None
        while self._held:
            left_s = self._due_s(self._held[0].layer) - self._device.now()
            if left_s > TICK_S:
                self._timer = asyncio.get_running_loop().call_later(left_s, self._let_go)
                return
            self._on_exit(self._held.popleft())

    def flush(self) -> None:
        """The pass is over: nothing is held back any longer."""
        self.stop()
        while self._held:
            self._on_exit(self._held.popleft())

    def stop(self) -> None:
        """Say nothing more by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class PacedTarget:
    """A Target that takes the time, and has the memory, of the profile's device.

    Exits speak no earlier than at their share of the pass, the verdict at its end. Calls that
    wait while the device is busy run as one batch, by the engine's rule, as far as the profile's ranges say so.
    Sessions reserve cache for their text and ``headroom_tokens`` more, and refuse with "busy"
    what the profile's memory does not hold. ``device`` is shared with whatever else runs on it.
    ``pace``: what calls cost, where the profile alone does not tell. ``opening_s``: how long a session waits for its
    place, where both ends begin a text in no time.
    """

    def __init__(
        self,
        inner: Target,
        profile: TargetProfile,
        *,
        device: Device | None = None,
        residual: Residual | None = None,
        outside: Outside = "warn",
        headroom_tokens: int = 256,
        pace: Pace | None = None,
        opening_s: float = 0.0,
    ) -> None:
        self.device = device or Device()
        self.pace = pace or Pace(profile, residual, outside)
        self._opening_s = opening_s
        self.pace.chunk = inner.card.prefill_chunk
        self._inner = inner
        self._headroom_tokens = headroom_tokens
        self._reserved_tokens = 0
        new_tokens, context = _TYPICAL_PASS
        pass_s = seconds(profile.target_pass, new_tokens, context)
        told_s = pass_times(profile.target_pass, WIDTHS, context)
        self._card = replace(inner.card, pass_s=pass_s, passes_s=told_s)

    @property
    def card(self) -> TargetCard:
        """The inner target's card, with the profile's duration of a pass."""
        return self._card

    @property
    def overruns(self) -> Overruns:
        """How often, and by how much at worst, the real target was slower than the profile."""
        return self.pace.overruns

    def divide(self, weight_of: Callable[[str], float], cache_of: Callable[[str], int]) -> None:
        """Divide the emulated device by these weights, and the inner target's cache."""
        self.device.shares.weight_of = weight_of
        if isinstance(self._inner, Divided):
            self._inner.divide(weight_of, cache_of)

    @property
    def load(self) -> Load | None:
        """How busy the inner target is."""
        return load_of(self._inner)

    async def slot(self, tokens: Sequence[int], sampling: Sampling, owner: str = "") -> Slot:
        """A place for a session. Raises RefusedError("busy") where the profile's memory is full."""
        return await self._opened(self._inner.slot(tokens, sampling, owner), len(tokens), owner)

    async def _opened(self, opening: Coroutine[Any, Any, Slot], tokens: int, owner: str) -> Slot:
        """The place that the inner target gives, with memory for a text of ``tokens`` tokens and what it may grow."""
        wanted = tokens + self._headroom_tokens
        try:
            if self._opening_s:
                await asyncio.sleep(self._opening_s)
            self.reserve(wanted)
        except BaseException:
            opening.close()
            raise
        try:
            return _PacedSlot(self, await opening, wanted, owner)
        except BaseException:
            self.release(wanted)
            raise

    @property
    def image_token(self) -> int | None:
        """The inner target's, if it sees images."""
        eyes = eyes_of(self._inner)
        return None if eyes is None else eyes.image_token

    async def look(self, image: bytes) -> Picture:
        """Look at an image, in the inner target's own time: profiles do not tell what it would take."""
        return await self._eyes().look(image)

    async def slot_seeing(
        self, pictures: Sequence[Picture], tokens: Sequence[int], sampling: Sampling, owner: str = ""
    ) -> Slot:
        """As ``slot``, for a text with images in it."""
        opening = self._eyes().slot_seeing(pictures, tokens, sampling, owner)
        return await self._opened(opening, len(tokens), owner)

    def _eyes(self) -> Seeing:
        eyes = eyes_of(self._inner)
        if eyes is None:
            raise RefusedError(INVALID, "this target sees no images")
        return eyes

    async def close(self) -> None:
        """Close the inner target."""
        await self._inner.close()

    def reserve(self, tokens: int) -> None:
        """Take memory for the cache of so many more tokens. Raises RefusedError("busy")."""
        memory = self.pace.profile.memory
        if memory is not None:
            cache_bytes = (self._reserved_tokens + tokens) * memory.cache_bytes_per_token
            needed_bytes = memory.weights_bytes + cache_bytes
            if needed_bytes > memory.device_bytes:
                name = self.pace.profile.name
                reason = f"{name!r} has {memory.device_bytes:,} bytes of memory and would need {needed_bytes:,}"
                raise RefusedError(BUSY, reason, RETRY_AFTER_S)
        self._reserved_tokens += tokens

    def release(self, tokens: int) -> None:
        """Give the memory of so many tokens back."""
        self._reserved_tokens -= tokens


class _PacedSlot:
    """A Slot on a paced target."""

    __slots__ = ("_due_s", "_inner", "_owner", "_reserved_tokens", "_target")

    def __init__(self, target: PacedTarget, inner: Slot, reserved_tokens: int, owner: str) -> None:
        self._target, self._owner = target, owner
        self._inner = inner
        self._reserved_tokens = reserved_tokens
        self._due_s = math.inf

    def wanted_by(self, due_s: float) -> None:
        """What it is asked from now on is of no use after ``due_s`` of the loop's clock; inf: whenever."""
        self._due_s = due_s
        if isinstance(self._inner, Urgent):
            self._inner.wanted_by(due_s)

    @property
    def cached(self) -> int:
        """How many leading tokens of the text the cache holds."""
        return self._inner.cached

    async def prefill(self, tokens: Sequence[int]) -> float:
        """Run committed tokens through the target; the emulated seconds on the device."""
        device, pace = self._target.device, self._target.pace
        work = self._work("prefill", len(tokens), 0)
        turn = device.start(work) or await device.enter(work)
        try:
            await self._inner.prefill(tokens)
            pace.note_late("prefill", await turn.over())
        finally:
            turn.leave(self._let_go_s(turn))
        return work.earlier_s + device.now() - turn.start_s

    async def verify(self, batch: Pass, on_exit: Callable[[Prediction], None]) -> Verdict:
        """One pass in the profile's time. Cancelled, it frees the device after the layer in flight."""
        device, pace = self._target.device, self._target.pace
        asked_s = device.now()
        tree = len(batch.tokens)
        work = self._work("pass", len(batch.trunk) + tree, len(batch.exits), tree)
        turn = device.start(work) or await device.enter(work)
        held = _HeldReadings(self._target, turn, on_exit) if batch.exits else None
        try:
            verdict = await self._inner.verify(batch, on_exit if held is None else held.take)
            pace.note_late("pass", await turn.over())
            if held is not None:
                held.flush()
        finally:
            if held is not None:
                held.stop()
            turn.leave(self._let_go_s(turn))
        began_s = turn.start_s if work.began_s < 0.0 else work.began_s
        return Verdict(verdict.prediction, began_s - asked_s, work.earlier_s + device.now() - turn.start_s)

    def keep(self, nodes: Sequence[int]) -> None:
        """Of the last pass, keep these nodes."""
        self._inner.keep(nodes)

    def close(self) -> None:
        """Give the place and its memory up."""
        self._target.release(self._reserved_tokens)
        self._reserved_tokens = 0
        self._inner.close()

    def _let_go_s(self, turn: Turn) -> float | None:
        """How long a call needs the device that leaves it now: to the end of the layer in flight."""
        now_s = self._target.device.now()
        if now_s >= turn.end_s - TICK_S:
            return None
        whole_s = turn.end_s - turn.start_s
        share = (now_s - TICK_S - turn.start_s) / whole_s
        return turn.start_s + whole_s * self._target.pace.layer_end(share, self._target.card.layers)

    def _work(self, kind: str, new_tokens: int, exits: int, tree: int = 0) -> Work:
        """A call, with memory taken for what it adds. Raises RefusedError("busy")."""
        context = self._inner.cached
        more = context + new_tokens - self._reserved_tokens
        if more > 0:
            self._target.reserve(more)
            self._reserved_tokens += more
        return Work(kind, new_tokens, context, exits, self._target.pace, tree, owner=self._owner, due_s=self._due_s)


class PacedDrafter:
    """A Drafter that takes the time of the profile's device.

    A step runs the nodes asked about and whatever above them the device's cache lacks: nodes
    that others hung there, committed tokens that were never drafted, and first of all the prompt.
    """

    __slots__ = ("_behind", "_cached", "_inner", "_most_nodes", "_news", "_text", "device", "pace")

    def __init__(
        self,
        inner: Drafter,
        profile: DraftProfile,
        *,
        device: Device | None = None,
        residual: Residual | None = None,
        outside: Outside = "warn",
        pace: Pace | None = None,
    ) -> None:
        self.device = device or Device()
        self.pace = pace or Pace(profile, residual, outside)
        self._inner = inner
        self._most_nodes = max(1, min(inner.max_nodes_per_step, profile.draft_step.range.new_tokens[1]))
        self._text: list[int] = []
        self._news = 0  # tokens, the last ones, that were committed since the last step
        self._behind = 0  # committed tokens before those that the cache lacks
        self._cached: set[Node] = set()  # nodes below the text of the last step that it holds

    @property
    def tokenizer_digest(self) -> str:
        """The inner drafter's."""
        return self._inner.tokenizer_digest

    @property
    def max_nodes_per_step(self) -> int:
        """The inner drafter's, as far as the profile was declared for."""
        return self._most_nodes

    @property
    def overruns(self) -> Overruns:
        """How often, and by how much at worst, the real drafter was slower than the profile."""
        return self.pace.overruns

    def see(self, images: Sequence[bytes], image_token: int) -> None:
        """The inner drafter is told."""
        if isinstance(self._inner, BesideImages):
            self._inner.see(images, image_token)

    async def begin(self, tokens: Sequence[int], sampling: Sampling) -> None:
        """A text begins: what the cache lacks of it is run, and paid for, with the first step."""
        self._follow()
        held = self._text[: len(self._text) - self._behind]
        self._text = list(tokens)
        self._behind = len(tokens) - common_prefix(held, tokens)
        self._cached.clear()
        await self._inner.begin(tokens, sampling)

    async def draft(self, nodes: Sequence[Node], width: int) -> list[list[Guess]]:
        """One draft step in the profile's time; cancelled, it keeps the device to its end."""
        if self._news:
            self._follow()
        fresh = self._uncached(nodes)
        if fresh is None:
            return await self._inner.draft(nodes, width)
        device, behind = self.device, self._behind
        work = Work("step", behind + len(fresh) or 1, len(self._text) - behind, 0, self.pace)
        turn = device.start(work) or await device.enter(work)
        try:
            self._cached.update(fresh)
            self._behind = 0
            guesses = await self._inner.draft(nodes, width)
            if (late_s := await turn.over()) > TICK_S:
                self.pace.note_late("step", late_s)
        finally:
            turn.leave()
        return guesses

    def _uncached(self, nodes: Sequence[Node]) -> list[Node] | None:
        """The nodes, and those above them, that the device's cache lacks; it holds nothing without what is above.

        None where no node is alive.
        """
        cached = self._cached
        fresh: list[Node] = []
        alive = False
        for node in nodes:
            if node.alive:
                alive = True
                while node.parent is not None and node not in cached and node not in fresh:
                    fresh.append(node)
                    node = node.parent
        return fresh if alive else None

    def _follow(self) -> None:
        """The text has grown since the last step: what was held of that is text now, what lies beside it is dead."""
        held, self._cached = self._cached, set()
        self._behind += self._news
        self._news = 0
        for node in held:
            if node.parent is None:
                self._behind -= 1
            elif node.alive:
                self._cached.add(node)

    def advance(self, tokens: Sequence[int]) -> None:
        """The committed text grew; what of it was never drafted is run with the next step."""
        self._text.extend(tokens)
        self._news += len(tokens)
        self._inner.advance(tokens)

    async def close(self) -> None:
        """Close the inner drafter."""
        await self._inner.close()
