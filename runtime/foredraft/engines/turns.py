"""Whose turn it is on the device: one forward after another, each with all that waits and may run together."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from foredraft.engines.batching import Waiting
from foredraft.engines.blocks import Text
from foredraft.engines.captured import CapturedForwards
from foredraft.engines.device import fine_clock
from foredraft.engines.kv_memory import KvMemory
from foredraft.engines.rows import Part
from foredraft.engines.shares import Shares
from foredraft.engines.target_pass import Call, ExitReader, Said, TargetForward
from foredraft.engines.torch_model import LoadedModel
from foredraft.engines.worker import DeviceWorker
from foredraft.protocol.ports import Prediction

_Result = TypeVar("_Result")


@dataclass(eq=False, slots=True)
class _Wait:
    """A call on its way through the device. ``done`` gets what the whole target says, None for a prefill."""

    call: Call
    text: Text
    done: "asyncio.Future[Prediction | None]"
    asked_s: float
    began_s: float = -1.0
    device_s: float = 0.0


class Turns:
    """The calls of all sessions on one device. ``chunk``: rows of long trunks in one forward, in all."""

    def __init__(
        self,
        model: LoadedModel,
        exits: ExitReader | None,
        memory: KvMemory,
        chunk: int,
        *,
        exact: bool,
        captured: CapturedForwards | None = None,
    ) -> None:
        self._model, self._exits, self._memory = model, exits, memory
        self._chunk, self._exact, self.captured = chunk, exact, captured
        self._worker = DeviceWorker("target")
        self._waiting: list[_Wait] = []
        self._task: asyncio.Task[None] | None = None
        self.shares = Shares()
        self.batch = 0  # calls in the forward that runs, or ran last
        self._in_forward = 0

    @property
    def waiting(self) -> int:
        """Calls that wait for their forward."""
        return len(self._waiting) - self._in_forward

    async def run(self, call: Call, text: Text) -> tuple[Prediction | None, float, float]:
        """See a call through: what the target says, the seconds that it waited, and those on the device.

        Cancelled, it costs the others nothing: a forward that nobody else wants ends after the layer in flight.
        """
        loop = asyncio.get_running_loop()
        wait = _Wait(call, text, loop.create_future(), fine_clock(loop)())
        self._waiting.append(wait)
        if self._task is None:  # a task begins after all that is ready now, which may want to share its forward
            self._task = asyncio.create_task(self._take_turns(), name="target")
        try:
            prediction = await wait.done
        except asyncio.CancelledError:
            call.cancelled = True
            raise
        return prediction, wait.began_s - wait.asked_s, wait.device_s

    async def _take_turns(self) -> None:
        """One forward after another, until nothing waits."""
        try:
            while self._waiting:
                await self._turn()
                await asyncio.sleep(0)  # those who were just served may want to share the next one
        except Exception as error:  # nobody may wait for ever
            self._fail(list(self._waiting), error)
        finally:
            self._task = None

    async def _turn(self) -> None:
        self._waiting = [wait for wait in self._waiting if not wait.call.cancelled]
        ready = self._ready()
        shares = self.shares.choose([_size(wait) for wait in ready], self._chunk)
        chosen = [(ready[share.call], share.trunk, share.whole) for share in shares]
        if not chosen:
            return
        calls = []
        for wait, trunk, whole in chosen:
            start = len(wait.text.tokens)
            end = start + trunk + (len(wait.call.batch.tokens) if whole and wait.call.batch else 0)
            calls.append((wait.call, wait.call.part(wait.text.runs(end), start, trunk, whole), whole))
        await self._run(chosen, calls)

    async def _run(self, chosen: list[tuple[_Wait, int, bool]], calls: list[tuple[Call, Part, bool]]) -> None:
        """One forward, and what came of it."""
        clock = fine_clock(loop := asyncio.get_running_loop())
        predictions: deque[Said] = deque()

        def deliver() -> None:
            while predictions:
                for call, prediction in predictions.popleft():
                    if not call.cancelled:
                        call.on_exit(prediction)

        def post(said: Said) -> None:
            predictions.append(said)
            loop.call_soon_threadsafe(deliver)

        self.batch = self._in_forward = len(chosen)
        forward = TargetForward(
            self._model, self._exits, self._memory, calls, post, exact=self._exact, captured=self.captured
        )
        try:
            said, began_s, ended_s = await self._worker.run(partial(_timed, forward.run, clock))
        except Exception as error:  # whatever it is, those in the forward must hear of it, and the others go on
            if self._model.ranks is not None:
                error = self._model.ranks.lose(error)
            self._fail([wait for wait, _, _ in chosen], error)
            return
        finally:
            self._in_forward = 0
        deliver()  # a loop that runs jobs inline calls back only after this coroutine waits
        verdicts = dict(said)
        for wait, trunk, whole in chosen:
            wait.began_s = began_s if wait.began_s < 0.0 else wait.began_s
            wait.device_s += ended_s - began_s
            if not wait.call.cancelled:
                self._follow(wait, trunk, whole, verdicts.get(wait.call))

    def _ready(self) -> list[_Wait]:
        """Those whose turn it may be. Of several that begin alike, the first one runs what the others take over."""
        ready: list[_Wait] = []
        begun: set[bytes] = set()
        for wait in self._waiting:
            adopted = wait.text.adopt(wait.call.trunk)
            wait.call.trunk = wait.call.trunk[adopted:]
            beginning = wait.text.ahead(wait.call.trunk)
            if beginning is None or beginning not in begun:
                ready.append(wait)
            if beginning is not None:
                begun.add(beginning)
        return ready

    def _follow(self, wait: _Wait, trunk: int, whole: bool, prediction: Prediction | None) -> None:
        """The forward of a call, or a part of it, is over."""
        wait.text.extend(wait.call.trunk[:trunk])
        wait.call.trunk = wait.call.trunk[trunk:]
        if whole:
            self._waiting.remove(wait)
            if not wait.done.done():
                wait.done.set_result(prediction)

    def _fail(self, waits: Sequence[_Wait], error: Exception) -> None:
        """A forward failed, and with it those who were in it."""
        for wait in waits:
            self._waiting.remove(wait)
            if not wait.done.done():
                wait.done.set_exception(error)

    async def job(self, work: Callable[[], _Result]) -> _Result:
        """Run something else on the device, between forwards."""
        return await self._worker.run(work)

    async def close(self) -> None:
        """Let the forward in flight end, then free the thread. Who waits is refused. Twice is fine."""
        await self._worker.close()
        if self._task is not None:
            await asyncio.wait([self._task])


def _size(wait: _Wait) -> Waiting:
    call = wait.call
    tree = len(call.batch.tokens) if call.batch else 0
    return Waiting(len(call.trunk), tree, call.batch is not None, wait.text.owner)


def _timed(job: Callable[[], Said], clock: Callable[[], float]) -> tuple[Said, float, float]:
    began_s = clock()
    said = job()
    return said, began_s, clock()
