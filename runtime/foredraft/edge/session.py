"""The edge's coroutines: one session, from a prompt to the complete text.

    reader   the link's messages change the edge's state, wake the drafting, and send what that calls for
    drafting asks the policy for the next draft step and runs it (``drafting``); then sends what is ready
    sender   carries what the link has no room for at once (``shipping``, ``outbox``)

Nobody who sends waits, so a draft step never holds up a message, nor a full link a draft step. A
link that breaks is made anew and the session opened again with the text so far; the text that
follows is the same, because the target's noise is keyed by position.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Sequence

from foredraft.edge.connections import Connect, Connection, Connections, Retry
from foredraft.edge.deadline import DEADLINE, ERROR, Deadline
from foredraft.edge.drafting import Drafting
from foredraft.edge.estimates import Estimates
from foredraft.edge.handshake import in_time, same_service, shake_hands, welcome
from foredraft.edge.images import Images
from foredraft.edge.local import LocalText
from foredraft.edge.policy import Policy
from foredraft.edge.proposals import Proposing
from foredraft.edge.session_report import SessionReport, report_of
from foredraft.edge.shipping import Shipping
from foredraft.edge.state import EdgeState
from foredraft.errors import LinkClosedError, ModelError, ProtocolError, RefusedError, UnreachableError
from foredraft.protocol import messages
from foredraft.protocol.events import Event, Observer, Value
from foredraft.protocol.messages import (
    PROTOCOL_VERSION,
    Commit,
    Drain,
    Hello,
    Hint,
    Message,
    Ready,
    Refused,
    Scores,
    Shown,
)
from foredraft.protocol.outbox import Outbox
from foredraft.protocol.ports import Drafter, Link
from foredraft.protocol.sampling import NOISE, REJECTION, Sampling, StopRules
from foredraft.protocol.signal import Signal
from foredraft.text.constraint import Constraint

log = logging.getLogger("foredraft.edge")


class EdgeSession:
    """Generates one text. Use it once: ``async for tokens in session.stream()`` or ``run``, then ``report``."""

    _clock: asyncio.AbstractEventLoop  # since the stream began

    def __init__(
        self,
        prompt: Sequence[int],
        *,
        connect: Connect | Connections,
        drafter: Drafter,
        policy: Policy,
        sampling: Sampling,
        rules: StopRules,
        api_key: str = "",
        retry: Retry | None = None,
        observer: Observer | None = None,
        name: str = "1",
        local: LocalText | None = None,
        estimates: Estimates | None = None,
        logprobs: int | None = None,
        deadline: Deadline | None = None,
        constraint: Constraint | None = None,
        images: Images | None = None,
        rejection: bool = False,
    ) -> None:
        """``connect``: makes a link, for this text alone; or the connections that it shares with others.

        ``estimates``: what earlier sessions over this link learned; this one goes on learning in it. ``logprobs``: how
        many log-probabilities are to come with each token; None for none (``state.logprobs``). ``deadline``: when the
        text is to be complete, counted from the begin of the stream. ``constraint``: what the text must be.
        ``images``: those in the prompt, which has one token in the place of each. ``rejection``: whether drafts are
        accepted by rejection sampling; at temperature 0 that is the same.
        """
        self.state = EdgeState(prompt if images is None else images.text, rules)
        self._images = images
        self._placed = asyncio.Event()  # the prompt is what the target will see
        if images is None or images.placed:
            self._placed.set()
        self.state.constrained = constraint is not None
        if estimates is not None:
            self.state.estimates = estimates
        self._local, self._deadline = local, deadline
        self.policy = policy
        self.name = name
        self.traceparent = ""  # of the trace that the session is to be part of
        self._connections = connect if isinstance(connect, Connections) else Connections(connect, api_key)
        self._proposing = Proposing(drafter, sampling) if rejection and sampling.temperature else None
        self._drafter = self._proposing or drafter
        self._sampling = sampling
        self._model_digest = ""
        self._exact: bool | None = None
        self._retry = retry or Retry()
        self._observer = observer
        note = None if observer is None else self._note
        self._shipping = Shipping(self.state, policy, sampling, note, logprobs, constraint, images, self._proposing)
        self._drafting = Drafting(self.state, self._drafter, policy, self._shipping.ship, local, note)
        self._fresh: deque[list[int]] | None = None  # where somebody watches
        self._news = Signal()
        self._over = False
        self._runner: asyncio.Task[None] | None = None
        self._stopped = False

    async def stream(self) -> AsyncGenerator[list[int], None]:
        """The committed tokens, as they come. Closing the generator ends the session at the cloud.

        Raises UnreachableError when retries are used up, RefusedError when the cloud says no,
        ModelError when the two ends' tokenizers differ, or another model would go on with the text,
        DeadlineError where that is wanted, LinkClosedError when it is stopped.
        What was yielded before stays valid.
        """
        self._begin()
        fresh: deque[list[int]] = deque()
        self._fresh = fresh
        self._runner = runner = asyncio.create_task(self._run(), name=f"edge session {self.name}")
        try:
            while not self._over:
                await self._news.wait()
                while fresh:
                    yield fresh.popleft()
            if not self._stopped:
                await runner
            elif not self.state.finish:
                raise LinkClosedError("the edge was closed while this text was being written")
        finally:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)

    async def stop(self) -> None:
        """End the stream that somebody else watches; returns when its link is given back."""
        self._stopped = True
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
            self._over = True  # one that was cancelled before it began could not say so
            self._news.set()

    async def run(self) -> None:
        """The whole text at once, for those who do not watch it grow; ``report`` has it. Raises as ``stream``."""
        self._begin()
        await self._run()

    def _begin(self) -> None:
        self._clock = asyncio.get_running_loop()
        self.state.tally.began_at_s = began_s = self._clock.time()
        if self._deadline is not None:
            self.state.now_s, self.state.due_s = began_s, began_s + self._deadline.within_s

    async def _run(self) -> None:
        try:
            timed = () if self._deadline is None else (self._in_time(self._deadline),)
            await _first_of(self._talk(), self._draft(), *timed)
        finally:
            self._over = True
            self._news.set()

    async def _draft(self) -> None:
        await self._placed.wait()
        await self._drafting.run(self._sampling)

    async def _in_time(self, deadline: Deadline) -> None:
        """End the text at its deadline, as was chosen."""
        await deadline.pass_by(self.state.tally.began_at_s)
        self._miss(deadline)

    def _miss(self, deadline: Deadline) -> None:
        """The text will not be complete in time. Raises DeadlineError where that is wanted.

        Who comes second (the cloud's word, or the clock) raises it as well: the first may be cancelled on its way out.
        """
        if self.state.finish not in ("", DEADLINE):
            return
        self.state.finish = DEADLINE
        if deadline.then == ERROR:
            deadline.missed(self.state.position - self.state.start)

    # Talking

    async def _talk(self) -> None:
        """Keep a link to the cloud until the text is complete."""
        failures = 0
        position = self.state.position
        while not self.state.finish:
            try:
                await self._converse()
            except (LinkClosedError, UnreachableError, RefusedError) as error:
                if isinstance(error, RefusedError) and error.retry_after_s is None:
                    raise
                failures = 1 if self.state.position > position else failures + 1
                position = self.state.position
                await self._pause(error, failures)

    async def _pause(self, error: Exception, failures: int) -> None:
        if failures > self._retry.attempts:
            if isinstance(error, RefusedError):
                raise error
            raise UnreachableError(f"gave up after {self._retry.attempts} retries: {error}") from error
        wait_s = self._retry.wait_s(failures)
        if isinstance(error, RefusedError) and error.retry_after_s is not None:
            wait_s = max(wait_s, error.retry_after_s)
        log.warning("%s; trying again in %.2g s (%d)", error, wait_s, failures)
        if self._observer is not None:
            self._note("retry", {"reason": str(error), "wait_s": wait_s})
        self.state.tally.reconnects += 1
        if self._local is not None:
            self._local.away = True
            self._drafting.wake()
        await asyncio.sleep(wait_s)

    async def _converse(self) -> None:
        """One connection: open the session with the text so far, read to the end."""
        connection = await self._connections.take()
        link, tally = connection.link, self.state.tally
        up, down = link.bytes_sent, link.bytes_received
        whole = False
        try:
            outbox = await self._open(connection)
            await _first_of(self._read(link), outbox.run())
            whole = await connection.leave() and not outbox.waiting
        except asyncio.CancelledError:  # nobody wants the text any more
            whole = connection.ready is not None and await connection.leave()
            raise
        finally:
            self._shipping.close()
            tally.bytes_up += link.bytes_sent - up
            tally.bytes_down += link.bytes_received - down
            self.state.disconnected()
            if whole:
                await self._connections.give_back(connection)
            else:
                await link.close()

    async def _open(self, connection: Connection) -> Outbox:
        """Open the session with the text so far; on a new connection hands are shaken first, or at the same time."""
        link, expected = connection.link, self._connections.expected
        if connection.ready is None and expected is not None and self._placed.is_set():
            await link.send(Hello(PROTOCOL_VERSION, self._connections.api_key))
            outbox = await self._begin_on(connection, expected)
            connection.ready = await in_time(welcome(link))
            if same_service(connection.ready, expected):
                return outbox
            self._shipping.close()
            self.state.disconnected()
        elif connection.ready is None:
            connection.ready = await in_time(shake_hands(link, self._connections.api_key))
        if self._images is not None and not self._placed.is_set():
            await self._images.ask(link, connection.next_session(self.state.session))
            self.state.place(self._images.text)
            self._placed.set()
        return await self._begin_on(connection, connection.ready)

    async def _begin_on(self, connection: Connection, ready: Ready) -> Outbox:
        self.state.connected(self._suits(ready), connection.next_session(self.state.session))
        if self._local is not None:
            self._local.away = False
        self._drafting.wake()
        return await self._shipping.open(connection.link, self.traceparent)

    def _suits(self, ready: Ready) -> Ready:
        """What the cloud serves, if it goes with the drafter and with the text so far."""
        ours = self._drafter.tokenizer_digest
        if ours and ours != ready.tokenizer_digest:
            raise ModelError(
                f"the draft's tokenizer ({ours}) is not the target's ({ready.tokenizer_digest}); "
                "use a draft model of the same family, or the n-gram drafter"
            )
        if ready.model_digest != (self._model_digest or ready.model_digest):
            raise ModelError(
                f"the text was begun by the model {self._model_digest}, and the server now serves "
                f"{ready.model_digest}; begin anew, or connect to a server of the first"
            )
        self._model_digest = ready.model_digest
        self._exact = ready.exact and self._exact is not False
        return ready

    async def _read(self, link: Link) -> None:
        """Take the cloud's messages as they come, until the text is complete."""
        if not self.state.finish:
            await link.listen(self._take)

    def _take(self, message: Message) -> bool:
        """Follow one message; whether more are wanted."""
        if getattr(message, "session", 0) not in (0, self.state.session):
            return True  # of an earlier session; 0 is about the connection itself
        if self._deadline is not None:
            self.state.now_s = self._clock.time()
        match message:
            case Commit():
                self._take_commit(message)
            case Hint():
                self._take_hint(message)
            case Scores():
                self.state.scored(message)
                return True
            case Shown() if self._images is not None:
                self._images.shown(message)
                return True
            case Refused(code=messages.UNKNOWN_ANCHOR | messages.FULL):
                self.state.refused(message)
            case Refused(code=messages.LATE) if self._deadline is not None:
                self._miss(self._deadline)
                return False
            case Refused():
                if message.code == messages.UNSEEN and self._images is not None:
                    self._images.forget()
                raise RefusedError(message.code, message.reason, message.retry_after_s)
            case Drain():
                raise RefusedError(messages.BUSY, "the server is going away", message.retry_after_s)
            case Ready():
                return True  # repeated
            case _:
                raise ProtocolError(f"{type(message).__name__} is not for an edge in a session")
        self.state.resting = False  # something happened; the policy is asked anew
        self._shipping.ship()
        self._drafting.wake()  # the next draft step first; whoever shows the text works while it runs
        if self._fresh:
            self._news.set()
        return not self.state.finish

    def _take_commit(self, commit: Commit) -> None:
        now_s = self._clock.time()
        self._shipping.heard(commit, now_s)
        new = self.state.committed(commit)
        if self._observer is not None:
            self._note_commit(commit, new)
        if not new:
            return
        if self._local is not None:
            self._local.committed(new)
        self._drafting.advance(new)
        self.state.tally.came(len(new), now_s)
        if self._fresh is not None:
            self._fresh.append(new)

    def _take_hint(self, hint: Hint) -> None:
        self.state.take_hint(hint)
        if self._observer is not None:
            data: dict[str, Value] = {"position": hint.position, "layer": hint.layer}
            data |= {"tokens": messages.unpack(hint.tokens), "confidence": hint.confidence, "after_s": hint.after_s}
            self._note("hint", data)

    # Telling

    def _note(self, kind: str, data: dict[str, Value]) -> None:
        if self._observer is not None:
            self._observer(Event(self._clock.time(), "edge", self.name, kind, data))

    def _note_commit(self, commit: Commit, new: list[int]) -> None:
        counts = {"drafted": commit.drafted, "accepted": commit.accepted}
        times = {"queue_s": commit.queue_s, "prefill_s": commit.prefill_s, "pass_s": commit.pass_s}
        self._note("commit", {"position": self.state.position - len(new), "tokens": new, **counts, **times})

    def report(self, text: str = "") -> SessionReport:
        """What happened, once the stream has ended."""
        state, images = self.state, self._images
        return report_of(
            state.tally,
            tokens=state.tree.tokens[state.start :],
            prompt_tokens=state.start,
            policy=self.policy.name,
            sampling=self._sampling,
            finish=state.finish,
            text=text,
            exact=bool(self._exact) and self._proposing is None,
            acceptance=NOISE if self._proposing is None else REJECTION,
            image_bytes=0 if images is None else images.sent_bytes,
            image_s=0.0 if images is None else images.took_s,
        )


async def _first_of(*running: Awaitable[None]) -> None:
    """Run all until the first ends, end the others, and raise what any of them raised."""
    tasks = [asyncio.ensure_future(one) for one in running]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
