"""The edge as a Python API: connect to a cloud, generate texts.

Use it so (inside a coroutine):

    async with foredraft.connect("http://cloud:8471", draft="ngram") as edge:
        generation = edge.generate("def main():", policy="seed")
        async for piece in generation:
            print(piece.text, end="")
        print(generation.report.tokens_per_pass)

Several texts may run at once, each with a connection and a drafter of its own; the drafters share their weights.
"""

import asyncio
import logging
import secrets
import ssl as ssl_module
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self
from weakref import WeakSet

from foredraft.api.drafters import Drafters
from foredraft.api.generation import Generation
from foredraft.api.latest import Latest
from foredraft.api.loading import NGRAM, Draft, ModelOptions, load_draft
from foredraft.api.servers import Servers
from foredraft.edge.acceptance import Rules, check_acceptance
from foredraft.edge.connections import Connect, Connections, Retry
from foredraft.edge.deadline import LOCAL, STOP, Deadline
from foredraft.edge.ending import Ending
from foredraft.edge.estimates import Estimates
from foredraft.edge.images import Images, Shows
from foredraft.edge.local import LocalText
from foredraft.edge.policy import Policy
from foredraft.edge.session import EdgeSession
from foredraft.engines.constrained_draft import ConstrainedDrafter
from foredraft.errors import ConfigError, ForedraftError, MissingExtraError
from foredraft.images import EncodedImage
from foredraft.links import websocket
from foredraft.links.address import SESSION_PATH, endpoint
from foredraft.links.model_files import fetch_chat_card, fetch_tokenizer
from foredraft.observe.record.recorder import Recorded, Recorder
from foredraft.policies import make_policy
from foredraft.policies.recommended import Recommended, spec_of_running
from foredraft.profiles import load_profile
from foredraft.protocol.events import Observer, together
from foredraft.protocol.messages import MAX_LOGPROBS, Ready
from foredraft.protocol.ports import BesideImages, Drafter, Link, NewDrafter
from foredraft.protocol.sampling import NOISE, REJECTION, Sampling, StopRules
from foredraft.text.chat_card import ChatCard
from foredraft.text.constraint import Constraint
from foredraft.text.fetched_tokenizer import FetchedTokenizer
from foredraft.text.grammar import Grammar, Grammars
from foredraft.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from foredraft.observe.spans import Spans

log = logging.getLogger("foredraft.edge")


class Host(Protocol):
    """A cloud that is not behind a URL: in this process (``Cloud``), or in simulated time."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The target's; None where texts are token ids."""

    async def connect(self) -> Link:
        """A link to it. Raises UnreachableError."""


Server = str | Host
"""A server's URL, or a cloud that is not behind one."""

MOST_IDLE = 4
"""Connections that are kept for texts to come."""

_MOST_DRAWN_SEED = 1 << 32  # short enough to copy by hand


class Edge:
    """An edge: a draft, and the clouds that it may use. Made by ``connect``; use it as a context.

    ``ready`` says what is served; ``tokenizer`` is None only where
    a cloud in this process has none. ``estimates``: what texts have taught of link and models; it serves the next.
    """

    ready: Ready
    tokenizer: Tokenizer | None

    def __init__(
        self,
        servers: Sequence[Server],
        draft: str | Path | Drafter | NewDrafter,
        options: ModelOptions,
        api_key: str,
        retry: Retry,
        ssl: ssl_module.SSLContext | None,
        estimates: Estimates | None = None,
        spans: "Spans | None" = None,
        acceptance: str = NOISE,
    ) -> None:
        check_acceptance(acceptance)
        self._acceptance, self._rules = acceptance, Rules()
        if not servers:
            raise ConfigError("no server to connect to; give a URL like http://127.0.0.1:8471")
        self._places = list(servers)
        self._ssl = ssl
        self._servers = Servers([_way(server, api_key, ssl) for server in servers])
        self._connections = Connections(self._servers.connect, api_key, most_idle=MOST_IDLE, retry=retry)
        self._draft = draft
        self._options = options
        self._api_key = api_key
        self._retry = retry
        self._drafters: Drafters | None = None
        self._translated = False
        self._running: WeakSet[Generation] = WeakSet()
        self.estimates = Estimates() if estimates is None else estimates
        self._spans = spans
        self._grammars: Grammars | None = None
        self._shows = Shows()
        self._count = 0

    async def __aenter__(self) -> Self:
        """Meet the cloud, fetch its tokenizer and load the drafter.

        Raises UnreachableError, RefusedError, ModelError, ConfigError.
        """
        self.ready = await self._connections.meet()
        try:
            loaded = await self._speaking(await self._load_draft())
            self._translated = loaded is not None and loaded.translated
            self._drafters = Drafters(self._draft, loaded)
        except BaseException:
            await self._close_links()
            raise
        return self

    async def _load_draft(self) -> Draft | None:
        """The draft that is given by name."""
        if not isinstance(self._draft, str | Path):
            return None
        return await asyncio.to_thread(load_draft, self._draft, self._options)

    async def _speaking(self, loaded: Draft | None) -> Draft | None:
        """The draft as it speaks to the target, whose tokenizer is known then."""
        if loaded is None or loaded.tokenizer is None or not loaded.speaks(self.ready.tokenizer_digest):
            self.tokenizer = await self._clouds_tokenizer()
        else:
            self.tokenizer = loaded.tokenizer
        if loaded is None:
            return None
        speaking = partial(loaded.speaking, self.tokenizer, self.ready.tokenizer_digest)
        try:
            return await asyncio.to_thread(speaking, translate=self._options.translate)
        except ForedraftError:
            await loaded.close()
            raise

    async def _clouds_tokenizer(self) -> Tokenizer | None:
        place = self._places[self._servers.current]
        if not isinstance(place, str):
            return place.tokenizer
        data = await fetch_tokenizer(place, self.ready.tokenizer_digest, self._api_key, ssl=self._ssl)
        return FetchedTokenizer(data)

    async def chat_card(self) -> ChatCard:
        """The chat template of the model that is served, and how its makers sample from it.

        Raises UnreachableError, RefusedError, ProtocolError.
        """
        place = self._places[self._servers.current]
        if isinstance(place, str):
            return await fetch_chat_card(place, self._api_key, ssl=self._ssl)
        return ChatCard() if place.tokenizer is None else place.tokenizer.chat

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for generation in list(self._running):
                await generation.end()
        finally:
            await self._close_links()
            if self._drafters is not None:
                await self._drafters.close()
            if isinstance(self.tokenizer, FetchedTokenizer):
                self.tokenizer.close()

    def _links(self) -> Connections:
        """The connections that a text is to have."""
        return self._connections

    def _known_images(self) -> Shows:
        """What is known of images from earlier texts."""
        return self._shows

    async def _close_links(self) -> None:
        await self._connections.close()

    @property
    def round_trip_s(self) -> float:
        """To the cloud and back, as the texts so far have seen it; 0 before the first."""
        return self.estimates.snapshot().round_trip_s

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        policy: str | Path | Policy | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        max_new_tokens: int = 128,
        stop: Sequence[str] = (),
        end_marks: bool = True,
        observer: Observer | None = None,
        local: LocalText | None = None,
        record: str | Path | Recorder | None = None,
        logprobs: int | None = None,
        deadline_s: float | None = None,
        at_deadline: str = STOP,
        constraint: Constraint | None = None,
        images: Sequence[EncodedImage] = (),
        acceptance: str | None = None,
    ) -> Generation:
        """Begin a text after ``prompt`` (text, or token ids); nothing is sent before the iteration.

        ``policy``: a name with parameters (``sync:gamma=6``), a policy file, or a policy of one's own; None takes
        what the server recommends, or else ``auto``. ``seed``: drawn when None. ``stop``: strings that end the text.
        ``end_marks``: whether the model's own end tokens end it. ``local``: is told what the draft says while no cloud
        is in reach, and what became of it; none of that is part of the text. ``record``: a file to record the session
        to, for ``read_record`` and ``foredraft replay``, or a recorder. ``logprobs``: each piece tells the
        log-probabilities of its tokens, and of so many (0 to 20) of the most probable ones. ``deadline_s``: how long
        after the iteration begins the text may take; ``at_deadline``: ``stop`` ends it with what is committed by then
        (its ``finish_reason`` is ``deadline``) and, under a constraint, the shortest ending; ``local`` lets the draft
        finish it, each piece marked as ``unverified``; ``error`` raises DeadlineError. ``constraint``: what the text
        must be (``constraint_of``); the draft keeps to it, too, where foredraft[grammar] is installed here. ``images``:
        those in the prompt (``image_of``), which has the model's mark for an image in the place of each, as its chat
        template writes it. ``acceptance``: the edge's own if None; see ``connect``.
        Raises ConfigError, UnknownNameError.
        """
        if self._drafters is None:
            raise ConfigError("this edge is not connected yet; write: async with connect(...) as edge")
        tokens = self._encode(prompt)
        seed = secrets.randbelow(_MOST_DRAWN_SEED) if seed is None else seed
        if logprobs is not None and not 0 <= logprobs <= MAX_LOGPROBS:
            raise ConfigError(f"logprobs must be 0 to {MAX_LOGPROBS}, not {logprobs!r}")
        deadline = None if deadline_s is None else Deadline(deadline_s, at_deadline)
        self._count += 1
        chosen = self._policy(policy)
        sampling = Sampling(temperature, top_k, top_p, seed)
        rules = StopRules(max_new_tokens, self.ready.stop_tokens if end_marks else (), tuple(stop))
        begin_grammar = self._grammar_of(constraint, needed=deadline is not None and deadline.then == LOCAL)
        shown = self._shown(images, tokens)
        if images and record is not None:
            raise ConfigError("a text with images cannot be recorded; leave record (--record) out")
        rule = self._rules.choose(acceptance or self._acceptance, recorded=record is not None)

        def start() -> int:
            return len(tokens if shown is None else shown.text)

        mine = self._drafters.take()  # now that nothing is wrong with what was asked
        self._show_to(mine, images)
        drafter, recorder = mine, None
        if begin_grammar is not None:
            drafter = ConstrainedDrafter(mine, begin_grammar, start)
        ending = None
        if deadline is not None:
            ending = Ending(
                deadline.then,
                drafter,
                sampling,
                span=lambda: (start(), min(start() + max_new_tokens, self.ready.context)),
                stop_tokens=rules.tokens,
                held=constraint is not None,
                begin_grammar=begin_grammar,
            )
        span = None
        if self._spans is not None:
            span = self._spans.text(self.ready.model_digest, sampling, max_new_tokens)
            observer = together(observer, span.observe)
        connect: Connect | Connections = self._links()
        if record is not None:
            recorder = record if isinstance(record, Recorder) else Recorder(record)
            of = self._recorded(tokens, sampling, rules, spec_of_running(chosen), drafter, observer)
            drafter, connect, observer = recorder.listen(of)
        session = EdgeSession(
            tokens,
            connect=connect,
            drafter=drafter,
            policy=chosen,
            sampling=sampling,
            rules=rules,
            api_key=self._api_key,
            retry=self._retry,
            observer=observer,
            name=str(self._count),
            local=local,
            estimates=self.estimates,
            logprobs=logprobs,
            deadline=deadline,
            constraint=constraint,
            images=shown,
            rejection=rule == REJECTION,
        )
        text = None if self.tokenizer is None else self.tokenizer.stream(tokens, stop)
        ended = partial(self._ended, mine)
        translated = self._translated
        return Generation(
            session, text, seed, self._begins, ended, recorder, translated=translated, ending=ending, span=span
        )

    def _shown(self, images: Sequence[EncodedImage], prompt: Sequence[int]) -> Images | None:
        """The images of a text, if it has some. Raises ConfigError."""
        if not images:
            return None
        if self.ready.image_token is None:
            raise ConfigError("the model that is served sees no images")
        return Images(images, prompt, self.ready.image_token, self._known_images())

    def _show_to(self, drafter: Drafter, images: Sequence[EncodedImage]) -> None:
        """Tell a drafter of the images of its next text, or that there are none."""
        if self.ready.image_token is not None and isinstance(drafter, BesideImages):
            drafter.see([image.data for image in images], self.ready.image_token)

    def latest(self, *, let_finish: bool = False, **asked: Any) -> Latest:
        """Asks of which only the newest matters, with these options of ``generate``: ``await latest.ask(prompt)``.

        ``let_finish``: a text that is being written is finished before the newest ask has its turn.
        """
        return Latest(self, asked, let_finish=let_finish)

    def _grammar_of(self, constraint: Constraint | None, *, needed: bool) -> Callable[[], Grammar] | None:
        """What makes a text's grammar, where that can be done here; the cloud holds the text to it in any case.

        ``needed``: a draft that may go on alone must be held, too. Raises MissingExtraError then.
        """
        if constraint is None or self.tokenizer is None:
            return None
        try:
            if self._grammars is None:
                self._grammars = Grammars(self.tokenizer.json, self.ready.vocab_size, self.ready.stop_tokens)
        except MissingExtraError as error:
            if needed:
                raise
            log.warning("drafting without the grammar: %s", error)
            return None
        return partial(self._grammars.begin, constraint)

    def _policy(self, given: str | Path | Policy | None) -> Policy:
        if given is None:
            return Recommended(self.ready)
        return make_policy(str(given)) if isinstance(given, str | Path) else given

    def _recorded(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        rules: StopRules,
        policy: str,
        drafter: Drafter,
        observer: Observer | None,
    ) -> Recorded:
        return Recorded(
            prompt=prompt,
            sampling=sampling,
            rules=rules,
            policy=policy,
            ready=self.ready,
            drafter=drafter,
            connect=self._servers.connect,
            draft=self._draft_name,
            pace=load_profile(self._options.pace, "draft") if self._options.pace else None,
            api_key=self._api_key,
            observer=observer,
            estimates=self.estimates,
        )

    @property
    def _draft_name(self) -> str:
        return str(self._draft) if isinstance(self._draft, str | Path) else type(self._draft).__name__

    def _encode(self, prompt: str | Sequence[int]) -> list[int]:
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise ConfigError("this cloud has no tokenizer; give the prompt as token ids")
            tokens = self.tokenizer.encode(prompt)
        else:
            tokens = list(prompt)
        if not tokens:
            raise ConfigError("the prompt is empty; the target needs at least one token to go on from")
        for token in tokens:
            if not 0 <= token < self.ready.vocab_size:
                raise ConfigError(f"token id {token} is outside the target's vocabulary of {self.ready.vocab_size}")
        return tokens

    async def _begins(self, generation: Generation) -> None:
        """A drafter of somebody's own serves one text at a time: a new one ends the one before."""
        if self._drafters is not None and self._drafters.only is not None:
            for before in list(self._running):
                await before.aclose()
        self._running.add(generation)

    def _ended(self, drafter: Drafter, generation: Generation) -> None:
        self._running.discard(generation)
        self._rules.saw(generation.report)
        if self._drafters is not None:
            self._drafters.give_back(drafter)


def connect(
    *servers: Server,
    draft: str | Path | Drafter | NewDrafter = NGRAM,
    options: ModelOptions | None = None,
    api_key: str = "",
    retry: Retry | None = None,
    ssl: ssl_module.SSLContext | None = None,
    estimates: Estimates | None = None,
    spans: "Spans | None" = None,
    acceptance: str = NOISE,
) -> Edge:
    """An edge for the cloud at a URL; use it as ``async with connect(...) as edge``.

    ``servers``: URLs, or clouds in this process; when one is gone, the session goes on at the next,
    which must serve the same model. ``draft``: ``ngram`` (needs no model), ``demo`` (the bundled
    draft), the folder or hub id of a model with the target's tokenizer, a drafter of one's own, which serves
    one text at a time and is left open, or what makes them, one for each text that runs. ``options``: how a draft
    model is run. ``retry``: how often a lost link is made anew.
    ``estimates``: what is known beforehand (``load_estimates``, ``estimates_from_profiles``). ``spans``: of
    OpenTelemetry, one for each text (``foredraft.observe.spans``). ``acceptance``: how drafts are accepted above
    temperature 0: ``noise``, where they equal what the target samples; ``rejection``, by rejection sampling: a text
    is as probable as the target makes it, but which one it is depends on the draft, too; ``auto``: whichever of them
    has brought more tokens per pass.
    """
    return Edge(servers, draft, options or ModelOptions(), api_key, retry or Retry(), ssl, estimates, spans, acceptance)


def _way(server: Server, api_key: str, ssl: ssl_module.SSLContext | None) -> Connect:
    """How to connect to one server. Raises ConfigError for a URL that is none."""
    if not isinstance(server, str):
        return server.connect
    endpoint(server, SESSION_PATH)
    return partial(websocket.connect, server, api_key=api_key, ssl=ssl)
