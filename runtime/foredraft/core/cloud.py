"""The cloud's coroutines: one service, a connection per edge, a walking task per session.

    reader   messages of the link change the session's plain state and wake the walker
    walker   asks the state what to do, runs a target pass, commits, sends
    sender   carries what was said to the link, so that a slow edge stalls nobody

Nothing that an edge sends ends the service: it is answered with Refused, and others go on.
"""

import asyncio
import hmac
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foredraft.core import messages
from foredraft.core.events import Event, Observer, Value
from foredraft.core.messages import Close, Drain, Grow, Hello, Hint, Open, Ready, Refused, Steer, ToEdge
from foredraft.core.ports import Detokenizer, Link, Pass, Reading, Seat, Target, Verdict
from foredraft.core.signal import Signal
from foredraft.core.tree import Node
from foredraft.core.walk import foresee
from foredraft.core.walker import TICK_S, Go, Limits, StopSearch, Timing, Wait, Walker, parents_of
from foredraft.errors import LinkClosedError, ProtocolError, RefusedError
from foredraft.stops import StopScanner

log = logging.getLogger("foredraft.cloud")

HANDSHAKE_S = 10.0
MAX_UNSENT = 1024
"""Messages waiting for a slow edge; one more and its link is closed (it can resume)."""

RESUMED_AT_A_TIME = 256
"""Tokens of a resumed text searched for stop strings before others have a turn."""


@dataclass(slots=True)
class Counters:
    """What the service has done since it started."""

    sessions: int = 0
    active: int = 0
    passes: int = 0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    hints: int = 0
    refused: int = 0
    pass_s: float = 0.0


class CloudService:
    """Serves one target to any number of edges.

    ``new_detokenizer`` makes the detokenizer that finds stop strings after a prompt; without one,
    a request with stop strings is refused.
    """

    def __init__(
        self,
        target: Target,
        *,
        limits: Limits | None = None,
        api_key: str = "",
        new_detokenizer: Callable[[Sequence[int]], Detokenizer] | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.target = target
        self.limits = limits or Limits()
        self.new_detokenizer = new_detokenizer
        self.observer = observer
        self.counters = Counters()
        self._api_key = api_key
        self._connections: list[_Connection] = []

    async def handle(self, link: Link) -> None:
        """Serve one connection until it closes. Never raises for what the peer does."""
        connection = _Connection(self, link)
        self._connections.append(connection)
        try:
            await connection.run()
        finally:
            self._connections.remove(connection)
            await link.close()

    def drain(self, retry_after_s: float = 0.0) -> None:
        """Tell every edge that this server is going away."""
        for connection in self._connections:
            connection.say(Drain(retry_after_s))

    def admit(self, hello: Hello) -> Ready:
        """The answer to a handshake. Raises RefusedError."""
        if hello.version != messages.PROTOCOL_VERSION:
            reason = f"protocol {hello.version}; this server speaks {messages.PROTOCOL_VERSION}"
            raise RefusedError(messages.VERSION, reason)
        if self._api_key and not hmac.compare_digest(hello.api_key.encode(), self._api_key.encode()):
            raise RefusedError(messages.UNAUTHORIZED, "the API key is missing or wrong")
        card = self.target.card
        return Ready(
            version=messages.PROTOCOL_VERSION,
            model_digest=card.model_digest,
            tokenizer_digest=card.tokenizer_digest,
            vocab_size=card.vocab_size,
            context=card.context,
            layers=card.layers,
            exits=card.exits,
            max_nodes=self.limits.max_nodes,
            max_pass_nodes=card.max_pass_nodes,
            max_chain=self.limits.max_chain,
            stop_tokens=card.stop_tokens,
            pass_s=card.pass_s,
        )

    async def stop_search(self, walker: Walker) -> StopSearch | None:
        """What looks for the session's stop strings, fed with the text generated so far."""
        if not walker.rules.strings:
            return None
        if self.new_detokenizer is None:
            raise RefusedError(messages.INVALID, "this server has no tokenizer, so no stop strings")
        prompt, generated = walker.tree.tokens[: walker.start], walker.tree.tokens[walker.start :]
        detokenizer, scanner = self.new_detokenizer(prompt), StopScanner(walker.rules.strings)

        def search(token: int) -> bool:
            scanner.feed(detokenizer.step(token))
            return scanner.found

        for count, token in enumerate(generated, start=1):
            if search(token):
                walker.finish = messages.STOP
            if count % RESUMED_AT_A_TIME == 0:
                await asyncio.sleep(0)
        return search


class _Connection:
    """One edge's connection: its outbox and the session that runs over it."""

    def __init__(self, service: CloudService, link: Link) -> None:
        self._service = service
        self._link = link
        self._outbox: asyncio.Queue[ToEdge] = asyncio.Queue(MAX_UNSENT)
        self._session: _Session | None = None
        self._task: asyncio.Task[None] | None = None
        self._cut: asyncio.Future[None] | None = None

    def say(self, message: ToEdge) -> None:
        """Put a message on its way. An edge that does not read loses its link, and can resume."""
        try:
            self._outbox.put_nowait(message)
        except asyncio.QueueFull:
            if self._cut is None:
                log.warning("an edge does not read its messages; closing its link")
                self._cut = asyncio.ensure_future(self._link.close())

    async def run(self) -> None:
        sender = asyncio.create_task(self._send(), name="cloud sender")
        try:
            await self._converse()
        except LinkClosedError:
            pass
        except (ProtocolError, RefusedError) as error:
            code = error.code if isinstance(error, RefusedError) else messages.INVALID
            self._refuse(0, code, str(error))
        finally:
            await self._end_session()
            await self._flush(sender)

    async def _flush(self, sender: "asyncio.Task[None]") -> None:
        """Give the last words a moment to leave, then end the sender."""
        drained = asyncio.create_task(self._outbox.join(), name="cloud flush")
        await asyncio.wait([sender, drained], timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        for task in (sender, drained):
            task.cancel()
        await asyncio.gather(sender, drained, return_exceptions=True)

    async def _send(self) -> None:
        """Carry the outbox to the link until it closes."""
        while True:
            message = await self._outbox.get()
            try:
                await self._link.send(message)
            except LinkClosedError:
                return
            finally:
                self._outbox.task_done()

    async def _converse(self) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                hello = await self._link.receive()
        except TimeoutError:
            raise RefusedError(messages.INVALID, f"no Hello within {HANDSHAKE_S:g} s") from None
        if not isinstance(hello, Hello):
            raise RefusedError(messages.INVALID, f"Hello comes first, not {type(hello).__name__}")
        self.say(self._service.admit(hello))
        while True:
            await self._take(await self._link.receive())

    async def _take(self, message: messages.Message) -> None:
        """Follow one message of the edge."""
        session = getattr(message, "session", 0)
        try:
            match message:
                case Open():
                    await self._open(message)
                case Grow() | Steer():
                    self._pass_on(message)
                case Close():
                    if self._session is not None and session == self._session.walker.session:
                        await self._end_session()
                case Hello():
                    self.say(self._service.admit(message))
                case _:
                    raise RefusedError(messages.INVALID, f"{type(message).__name__} is not for the cloud")
        except ProtocolError as error:
            self._refuse(session, messages.INVALID, str(error))
        except RefusedError as error:
            self._refuse(session, error.code, error.reason, error.retry_after_s)

    def _refuse(self, session: int, code: str, reason: str, retry_after_s: float | None = None) -> None:
        self._service.counters.refused += 1
        self.say(Refused(session, code, reason, retry_after_s))

    def _pass_on(self, message: Grow | Steer) -> None:
        """To the session it is for. What belongs to an ended one is late, and needs no answer."""
        if self._session is None or message.session > self._session.walker.session:
            raise RefusedError(messages.INVALID, f"session {message.session} is not open")
        if message.session == self._session.walker.session:
            self._session.take(message)

    async def _open(self, opened: Open) -> None:
        """Begin a session; it takes the place of the one before. A repeated Open changes nothing."""
        if self._session is not None and opened.session <= self._session.walker.session:
            return
        now_s = asyncio.get_running_loop().time()
        walker = Walker(opened, self._service.target.card, self._service.limits, now_s)
        await self._end_session()
        self._session = _Session(self._service, walker, self.say)
        self._task = asyncio.create_task(self._walk(self._session), name=f"walker {opened.session}")

    async def _walk(self, session: "_Session") -> None:
        try:
            await session.run()
        except RefusedError as error:
            self._refuse(session.walker.session, error.code, error.reason, error.retry_after_s)
        except Exception as error:
            log.exception("session %d failed", session.walker.session)
            self._refuse(session.walker.session, messages.INTERNAL, f"the target failed: {error}")

    async def _end_session(self) -> None:
        """Stop walking. The session's number is remembered, so that late messages are known as such."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class _Session:
    """One text being walked: the walker's state, its seat at the target, and its voice."""

    seat: Seat

    def __init__(self, service: CloudService, walker: Walker, say: Callable[[ToEdge], None]) -> None:
        self.walker = walker
        self._service = service
        self._stops: StopSearch | None = None
        self._say = say
        self._changed = Signal()
        self._prefill_s = 0.0
        self._heard = 0
        self._heard_at_s = walker.idle_since_s

    def take(self, message: Grow | Steer) -> None:
        """Change the state as the message says, and let the walker look again."""
        self._heard += 1
        self._heard_at_s = asyncio.get_running_loop().time()
        if isinstance(message, Steer):
            self.walker.take_steer(message)
        elif (refused := self.walker.take_grow(message)) is not None:
            self._service.counters.refused += 1
            self._say(refused)
        self._changed.set()

    async def run(self) -> None:
        """Take a seat, walk, and give it up whatever happens."""
        service, counters = self._service, self._service.counters
        self._stops = await service.stop_search(self.walker)
        self.seat = await service.target.seat(self.walker.tree.tokens, self.walker.sampling)
        counters.sessions += 1
        counters.active += 1
        try:
            await self._walk()
        finally:
            counters.active -= 1
            self.seat.close()

    async def _walk(self) -> None:
        """Verify, or decode alone, until the text is complete."""
        walker, clock = self.walker, asyncio.get_running_loop()
        chunk = self._service.target.card.prefill_chunk
        if walker.finish:  # resumed at its very end: say so again
            self._say(messages.Commit(walker.session, walker.tree.position, b"", 0, 0, 0, 0, 0, walker.finish))
        while not walker.finish:
            plan = walker.plan(clock.time())
            uncached = walker.tree.position - self.seat.cached
            if uncached > chunk or (uncached > 1 and not isinstance(plan, Go)):
                await self._prefill(min(chunk, uncached - 1))
            elif isinstance(plan, Go):
                await self._verify(plan.nodes)
            else:
                await self._wait(plan)

    async def _wait(self, plan: Wait) -> None:
        clock = asyncio.get_running_loop()
        await self._changed.wait(plan.until_s)
        if plan.idle and clock.time() >= plan.until_s - TICK_S:
            raise RefusedError(messages.BUSY, "idle for too long; the place went to others", 0.0)

    async def _prefill(self, count: int) -> None:
        cached = self.seat.cached
        self._prefill_s += await self.seat.prefill(self.walker.tree.tokens[cached : cached + count])

    async def _verify(self, nodes: tuple[Node, ...]) -> None:
        """One target pass: hints on the way, a commit at the end."""
        walker, clock = self.walker, asyncio.get_running_loop()
        position, began_s = walker.tree.position, clock.time()
        batch = Pass(
            trunk=tuple(walker.tree.tokens[self.seat.cached :]),
            tokens=tuple(node.token for node in nodes),
            parents=tuple(parents_of(nodes)),
            exits=tuple(sorted(set(walker.steer.exits))),
        )

        def on_exit(reading: Reading) -> None:
            self._hint(batch, reading, position, clock.time() - began_s)

        self._note("pass", position=position, nodes=len(nodes), trunk=len(batch.trunk))
        waited_s = began_s - walker.idle_since_s
        verdict = await self.seat.verify(batch, on_exit)
        self._commit(nodes, verdict, waited_s, clock.time())

    def _hint(self, batch: Pass, reading: Reading, position: int, after_s: float) -> None:
        walker = self.walker
        self._note("exit", position=position, layer=reading.layer)
        foreseen, confidence = foresee(batch.tokens, batch.parents, reading, walker.steer.threshold)
        if foreseen:
            self._service.counters.hints += 1
            packed = messages.pack(foreseen)
            self._say(Hint(walker.session, position, reading.layer, packed, min(1.0, confidence), after_s))

    def _commit(self, nodes: tuple[Node, ...], verdict: Verdict, waited_s: float, now_s: float) -> None:
        timing = Timing(self._prefill_s, waited_s, self._heard, now_s - self._heard_at_s)
        commit, kept = self.walker.commit(nodes, verdict, timing, now_s, self._stops)
        self._prefill_s = 0.0
        self.seat.keep(kept)
        self._say(commit)
        counters = self._service.counters
        counters.passes += 1
        counters.tokens += self.walker.tree.position - commit.position
        counters.drafted += commit.drafted
        counters.accepted += commit.accepted
        counters.pass_s += verdict.pass_s
        self._note(
            "verdict",
            position=commit.position,
            tokens=self.walker.tree.tokens[commit.position :],
            queue_s=verdict.queue_s,
            pass_s=verdict.pass_s,
        )

    def _note(self, kind: str, **data: Value) -> None:
        observer = self._service.observer
        if observer is not None:
            now_s = asyncio.get_running_loop().time()
            observer(Event(now_s, "cloud", str(self.walker.session), kind, data))
