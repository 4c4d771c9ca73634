"""One edge's connection to the cloud: the handshake, one text after another, and whose they are.

    reader   listens: messages of the link change the session's plain state and wake its task
    session  asks the state what to do, runs a target pass, commits, sends (``session``)
    sender   carries what the link has no room for at once (``outbox``), so that a slow edge stalls nobody

Nothing that an edge sends ends more than its connection: it is answered with Refused, and others go on.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from foredraft.cloud import session_log
from foredraft.cloud.gallery import Gallery, Viewing
from foredraft.cloud.proposals import Proposals
from foredraft.cloud.quota import BYTES, IMAGE_BYTES, TOKENS, Quota
from foredraft.cloud.read_back import opening_of, tell
from foredraft.cloud.session import CloudSession, Shared
from foredraft.cloud.state import CloudState, Limits
from foredraft.errors import ConfigError, GrammarError, LinkClosedError, ProtocolError, RefusedError
from foredraft.keys import EVERYBODY, Key
from foredraft.protocol import messages
from foredraft.protocol.counters import Counters
from foredraft.protocol.messages import (
    Close,
    Constrain,
    Grow,
    Hello,
    Image,
    Open,
    Propose,
    Read,
    Ready,
    Refused,
    Score,
    Show,
    Shown,
    Steer,
    ToEdge,
)
from foredraft.protocol.outbox import Outbox
from foredraft.protocol.ports import Link, TargetCard
from foredraft.text.constraint import Constraint

log = logging.getLogger("foredraft.cloud")

HANDSHAKE_S = 10.0
RETRY_AFTER_S = 1.0
MAX_UNSENT = 1024
"""Messages waiting for a slow edge; one more and its link is closed (it can resume)."""


class Host(Protocol):
    """What a connection needs of its service."""

    limits: Limits
    shared: Shared
    quota: Quota
    gallery: Gallery

    @property
    def counters(self) -> Counters:
        """What the service has done since it started."""

    def admit(self, hello: Hello) -> Ready:
        """The answer to a handshake. Raises RefusedError."""

    def key_of(self, hello: Hello) -> Key:
        """Whose handshake it is. Raises RefusedError."""

    def card_for(self, key: Key) -> TargetCard:
        """What is served to this key."""

    def texts_of(self, key: Key) -> int:
        """How many texts are being written for this key."""


class Connection:
    """One edge's connection: its outbox and the session that runs over it."""

    _heard: messages.Message

    def __init__(self, service: Host, link: Link, number: int) -> None:
        self._service = service
        self.link = link
        self._number = number
        self._outbox = Outbox(link)
        self._session: CloudSession | None = None
        self.key = EVERYBODY  # whose texts may share their beginnings
        self._task: asyncio.Task[object] | None = None
        self._cut: asyncio.Future[None] | None = None
        self._dismissal: RefusedError | None = None
        self._admitted = False
        self._asked = -1  # the latest session that was to be opened
        self._score: Score | None = None  # of the session that is opened next
        self._constrain: Constrain | None = None  # likewise
        self._propose: Propose | None = None  # likewise
        self._viewing = Viewing(service.gallery)
        self._charged_bytes = 0

    @property
    def idle(self) -> bool:
        """Whether it is open, and carries no text at the moment."""
        return self._admitted and self._cut is None and not self.busy

    @property
    def busy(self) -> bool:
        """Whether a text is being written over it."""
        return self._task is not None and not self._task.done()

    def dismiss(self, code: str, reason: str) -> None:
        """It ends here. Refused as busy, the edge may connect again when it has something to say."""
        if self._cut is None:
            self._dismissal = RefusedError(code, reason)
            self._cut = asyncio.ensure_future(self._dismiss(self._dismissal))

    async def _dismiss(self, refusal: RefusedError) -> None:
        session_log.refused(self._number, 0, refusal.code, self.key.name)
        await self._end_session()  # before the word that a full link may hold up
        with contextlib.suppress(LinkClosedError):
            await self.link.send(Refused(0, refusal.code, refusal.reason))
        await self.link.close()

    def say(self, message: ToEdge) -> None:
        """Put a message on its way. An edge that does not read loses its link, and can resume."""
        if len(self._outbox.waiting) < MAX_UNSENT:
            self._outbox.say(message)
        elif self._cut is None:
            log.warning("an edge does not read its messages; closing its link")
            self._cut = asyncio.ensure_future(self.link.close())

    async def run(self) -> None:
        sender = asyncio.create_task(self._outbox.run(), name="cloud sender")
        try:
            await self._converse()
        except LinkClosedError:
            pass
        except (ProtocolError, RefusedError) as error:
            code = error.code if isinstance(error, RefusedError) else messages.INVALID
            self._refuse(0, code, str(error))
        finally:
            try:
                await self._end_session()
            finally:
                await self._flush(sender)
                self._session = None  # it speaks through us: let go of each other, and nothing waits for the collector

    async def _flush(self, sender: "asyncio.Task[None]") -> None:
        """Give the last words a moment to leave, then end the sender."""
        self._outbox.end()
        try:
            await asyncio.wait([sender], timeout=1.0)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _converse(self) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                hello = await self.link.receive()
        except TimeoutError:
            raise RefusedError(messages.INVALID, f"no Hello within {HANDSHAKE_S:g} s") from None
        if not isinstance(hello, Hello):
            raise RefusedError(messages.INVALID, f"Hello comes first, not {type(hello).__name__}")
        self.say(self._service.admit(hello))
        self.key, self._admitted = self._service.key_of(hello), True
        while True:
            await self.link.listen(self._hear)
            await self._take(self._heard)

    def _hear(self, message: messages.Message) -> bool:
        """Pass on at once what is for the session; False for the rest, which takes waiting (``_take``)."""
        match message:
            case Propose() if message.session > self._asked:
                pass  # it comes before its Open
            case Grow() | Steer() | Propose():
                try:
                    self._pass_on(message)
                except (ProtocolError, RefusedError) as error:
                    self._refuse_for(message.session, error)
                return True
        self._heard = message
        return False

    async def _take(self, message: messages.Message) -> None:
        """Follow one message of the edge that is about a session as a whole, or the connection."""
        session = getattr(message, "session", 0)
        try:
            match message:
                case Score():
                    self._score = message
                case Constrain():
                    self._constrain = message
                case Propose():
                    self._propose = message
                case Show():
                    self._say_shown(self._viewing.show(message, self.key.name))
                case Image():
                    session = self._viewing.session
                    await self._see(message)
                case Open():
                    await self._open(message)
                case Close():
                    if self._session is not None and session == self._session.state.session:
                        await self._end_session()
                case Read():
                    await self._read_back(message)
                case Hello():
                    self.say(self._service.admit(message))
                case _:
                    raise RefusedError(messages.INVALID, f"{type(message).__name__} is not for the cloud")
        except (ProtocolError, RefusedError) as error:
            self._refuse_for(session, error)
        finally:
            self._charge_bytes()  # afterwards: what asks for a text is no reason to refuse it

    def _refuse_for(self, session: int, error: ProtocolError | RefusedError) -> None:
        if isinstance(error, RefusedError):
            self._refuse(session, error.code, error.reason, error.retry_after_s)
        else:
            self._refuse(session, messages.INVALID, str(error))

    def _refuse(self, session: int, code: str, reason: str, retry_after_s: float | None = None) -> None:
        self._service.counters.refused += 1
        session_log.refused(self._number, session, code, self.key.name)
        self.say(Refused(session, code, reason, retry_after_s))

    def _pass_on(self, message: Grow | Steer | Propose) -> None:
        """To the session it is for. What belongs to one that has ended or was refused needs no answer."""
        if message.session > self._asked:
            raise RefusedError(messages.INVALID, f"session {message.session} is not open")
        if self._session is not None and message.session == self._session.state.session:
            self._session.take(message)

    async def _open(self, opened: Open) -> None:
        """Begin a session; it takes the place of the one before. A repeated Open changes nothing."""
        if self._dismissal is not None:
            raise self._dismissal
        if self._session is not None and opened.session <= self._session.state.session:
            return
        self._asked = max(self._asked, opened.session)
        if 0 < self.key.sessions <= self._service.texts_of(self.key) - self.busy:
            reason = f"the key {self.key.name!r} has its {self.key.sessions} texts at once (limit: sessions)"
            raise RefusedError(messages.BUSY, reason, RETRY_AFTER_S)
        now_s = asyncio.get_running_loop().time()
        state = CloudState(opened, self._service.card_for(self.key), self._service.limits, now_s)
        pictures = self._viewing.pictures(opened.session)
        if state.tree.position == state.start:  # and not one that goes on
            self._charge_prompt(state.start, now_s)
        proposals = self._proposed_for(state)
        await self._end_session()
        asked = None if self._score is None or self._score.session != opened.session else self._score.logprobs
        name = f"{self._number}.{opened.session}"
        held = self._held_to(opened.session)
        session = CloudSession(
            self._service.shared, state, self.say, self.key.name, asked, name, held, self._charge, pictures, proposals
        )
        session.attach(opened.chains)
        self._session = session
        session.note("begin", traceparent=opened.traceparent, position=state.tree.position)
        work = self._work(opened.session, session.run)
        self._task = task = asyncio.create_task(work, name=f"cloud {opened.session}")
        task.add_done_callback(partial(self._ended, session, name, now_s))  # one that had no time to begin, too

    def _charge_prompt(self, tokens: int, now_s: float) -> None:
        """A text of the key begins. Raises RefusedError where it has had its tokens or bytes a minute."""
        quota, key = self._service.quota, self.key
        for limit in (BYTES, TOKENS):
            quota.check(key, limit, now_s)
        quota.spend(key, TOKENS, tokens, now_s)

    def _charge(self, tokens: int) -> None:
        """The key has had so many more tokens."""
        self._service.quota.spend(self.key, TOKENS, tokens, asyncio.get_running_loop().time())

    def _charge_bytes(self) -> None:
        """The key has sent what has come since the last time."""
        before, self._charged_bytes = self._charged_bytes, self.link.bytes_received
        now_s = asyncio.get_running_loop().time()
        self._service.quota.spend(self.key, BYTES, self._charged_bytes - before, now_s)

    async def _see(self, piece: Image) -> None:
        """Take a piece of an image. Raises RefusedError where the key has had its bytes of them a minute."""
        quota, now_s = self._service.quota, asyncio.get_running_loop().time()
        if piece.offset == 0:
            for limit in (BYTES, IMAGE_BYTES):
                quota.check(self.key, limit, now_s)
        quota.spend(self.key, IMAGE_BYTES, len(piece.data), now_s)
        self._say_shown(await self._viewing.take(piece, self.key.name))

    def _say_shown(self, shown: Shown | None) -> None:
        if shown is not None:
            self.say(shown)

    def _held_to(self, session: int) -> Constraint | None:
        """What the text of this session must be. Raises RefusedError."""
        if self._constrain is None or self._constrain.session != session:
            return None
        try:
            return Constraint(self._constrain.kind, self._constrain.rule)
        except ConfigError as error:
            raise RefusedError(messages.INVALID, str(error)) from error

    def _proposed_for(self, state: CloudState) -> Proposals | None:
        """What the draft of this session proposes, where its drafts are accepted by rejection sampling.

        Raises RefusedError or ProtocolError. At temperature 0 both rules are the same.
        """
        first, card = self._propose, self._service.card_for(self.key)
        if first is None or first.session != state.session or state.sampling.temperature == 0.0:
            return None
        if not card.rejects:
            reason = "this server's target accepts drafts by shared noise alone; leave rejection sampling out"
            raise RefusedError(messages.INVALID, reason)
        proposals = Proposals(state.tree, state.sampling.seed, card.vocab_size)
        proposals.take(first.proposals)
        return proposals

    def _ended(self, session: CloudSession, name: str, began_s: float, task: "asyncio.Task[str]") -> None:
        """A session's work is over: a line for operators."""
        how = session_log.LEFT if task.cancelled() else task.result() or session.state.finish
        took_s = asyncio.get_running_loop().time() - began_s
        session_log.session_ended(name, self.key.name, session.state, session.tally, how, took_s)
        if self._service.shared.observer is not None:
            session.note("end", **session_log.fields_of(name, self.key.name, session.state, session.tally, how, took_s))

    async def _read_back(self, read: Read) -> None:
        """Tell what exits and draft say of a finished text, in the place of a session."""
        if self._dismissal is not None:
            raise self._dismissal
        now_s = asyncio.get_running_loop().time()
        state = CloudState(opening_of(read), self._service.card_for(self.key), self._service.limits, now_s)
        await self._end_session()
        work = self._work(read.session, partial(self._tell, state))
        self._task = asyncio.create_task(work, name=f"reader {read.session}")

    async def _tell(self, state: CloudState) -> None:
        shared = self._service.shared
        text, sampling = state.tree.tokens, state.sampling
        async for predictions in tell(
            state.session, shared.target, shared.new_drafter, text, state.start, sampling, self.key.name
        ):
            self.say(predictions)

    async def _work(self, number: int, work: Callable[[], Awaitable[None]]) -> str:
        """See a session's work to its end, or say why there is none; empty where it came to its end."""
        try:
            await work()
        except RefusedError as error:
            self._refuse(number, error.code, error.reason, error.retry_after_s)
            return session_log.REFUSED
        except GrammarError as error:
            self._refuse(number, messages.INVALID, str(error))
            return session_log.REFUSED
        except Exception as error:
            log.exception("session %d failed", number)
            self._refuse(number, messages.INTERNAL, f"the target failed: {error}")
            return session_log.FAILED
        return ""

    async def _end_session(self) -> None:
        """Stop verifying. The session's number is remembered, so that late messages are known as such."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
