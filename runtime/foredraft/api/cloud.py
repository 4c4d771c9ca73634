"""A cloud of one's own: a target that edges can use, over HTTP or from within this process."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from foredraft.api.loading import ModelOptions, load_cloud_drafter, load_target
from foredraft.cloud.service import CloudService
from foredraft.cloud.state import Limits
from foredraft.errors import ConfigError, GrammarError, MissingExtraError
from foredraft.keys import Keys
from foredraft.links.memory import memory_link
from foredraft.observe.live import Live
from foredraft.policies.recommended import recommendation
from foredraft.protocol.events import Observer, together
from foredraft.protocol.ports import Divided, Link, Load, NewDrafter, Target, TargetCard, load_of
from foredraft.text.grammar import Grammars
from foredraft.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from foredraft.observe.spans import Spans
    from foredraft.server.app import Server
    from foredraft.server.bounds import Bounds


class Cloud:
    """One target and the sessions of any number of edges. Use it as a context: it closes the target.

    ``tokenizer``: handed out to edges, and used to find stop strings; a target of token ids alone
    needs none while nobody connects over HTTP.
    """

    def __init__(
        self,
        target: Target,
        tokenizer: Tokenizer | None = None,
        *,
        api_key: str = "",
        limits: Limits | None = None,
        max_sessions: int = 64,
        new_drafter: NewDrafter | None = None,
        observer: Observer | None = None,
        policy: str | Path = "",
        keys: Keys | None = None,
        spans: "Spans | None" = None,
    ) -> None:
        """``keys``: who may come in, in the place of the one ``api_key`` (``keys.KeyFile``). ``spans``: of
        OpenTelemetry, one for each session (``foredraft.observe.spans``).

        ``new_drafter``: makes a session's drafter in the cloud, for the policies ``colocated`` and ``both``.

        ``policy``: a specification or a policy file, recommended to edges that are given no policy of their own.
        Raises ConfigError, UnknownNameError for one that this cloud cannot serve or that no edge would follow.
        """
        if max_sessions < 1:
            raise ConfigError(f"max_sessions must be 1 or more, not {max_sessions!r}")
        self.recommends = recommendation(policy, target.card.exits, new_drafter is not None)
        self.target = target
        self.tokenizer = tokenizer
        self.keys = keys or Keys.of(api_key)
        self._grammars = None if tokenizer is None else _grammars(tokenizer, target.card)
        self._spans = spans
        if spans is not None:
            observer = together(observer, spans.sessions(target.card.model_digest))
        self._observer = observer
        if isinstance(target, Divided):
            target.divide(self.keys.weight_of, self.keys.cache_of)
        self.service = CloudService(
            target,
            limits=limits,
            keys=self.keys,
            new_detokenizer=None if tokenizer is None else tokenizer.stream,
            new_drafter=new_drafter,
            new_grammar=None if self._grammars is None else self._grammars.begin,
            observer=observer,
            policy=self.recommends,
        )
        self._max_sessions = max_sessions
        self._sessions: set[asyncio.Task[None]] = set()

    @classmethod
    def load(
        cls,
        model: str | Path = "demo",
        *,
        exits: str | Path | None = None,
        draft: str | Path = "",
        options: ModelOptions | None = None,
        api_key: str = "",
        max_sessions: int = 64,
        cache_gib: float = 2.0,
        observer: Observer | None = None,
        policy: str | Path = "",
        keys: Keys | None = None,
        spans: "Spans | None" = None,
    ) -> "Cloud":
        """A cloud with a model of transformers: a folder, a hub id, or ``demo`` for the bundled target.

        ``exits``: a folder of exit heads (the bundled target brings its own). ``draft``: a draft model beside
        the target, as after ``load_drafter``. ``cache_gib``: what the target's caches of all sessions may take.
        ``policy``: recommended to edges that are given none.
        Raises ModelError, ConfigError, ProfileError.
        Takes seconds: from a coroutine, call it in a thread.
        """
        if not 0.0 < cache_gib < float("inf"):
            raise ConfigError(f"cache_gib must be above 0, not {cache_gib!r}")
        if options is not None and options.draft and not draft:
            raise ConfigError(f"--draft-option {options.draft[0]!r}, and no draft beside the target: give --draft, too")
        policy = recommendation(policy, None, bool(draft))
        cache_bytes = int(cache_gib * (1 << 30))
        target, tokenizer = load_target(
            model, exits, options or ModelOptions(), cache_bytes=cache_bytes, max_slots=max_sessions
        )
        new_drafter = load_cloud_drafter(draft, options or ModelOptions(), target.card, tokenizer) if draft else None
        cloud = cls(
            target,
            tokenizer,
            api_key=api_key,
            max_sessions=max_sessions,
            new_drafter=new_drafter,
            observer=observer,
            policy=policy,
            keys=keys,
            spans=spans,
        )
        if cloud._grammars is not None:
            with suppress(GrammarError):  # a text that asks for one is told
                cloud._grammars.ready()  # it holds up the whole process, which later is full of sessions
        return cloud

    async def connect(self) -> Link:
        """A link to this cloud from within the process."""
        edge, cloud = memory_link()
        session = asyncio.create_task(self.service.handle(cloud), name="cloud in memory")
        self._sessions.add(session)
        session.add_done_callback(self._sessions.discard)
        return edge

    @asynccontextmanager
    async def listen(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        *,
        show_text: bool = False,
        bounds: "Bounds | None" = None,
    ) -> AsyncIterator[str]:
        """Serve over HTTP within the context; yields the URL. Port 0 takes a free one. Raises ConfigError.

        ``show_text``: whether whoever has the key may see texts on the server's page. ``bounds``: of peers, but for
        ``max_sessions``, which is the cloud's own.
        """
        from foredraft.server.door import serving

        async with self._door(show_text, bounds) as door, serving(door, host=host, port=port, tls=tls) as url:
            yield url

    async def serve(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None = None,
        on_ready: Callable[[str], None] | None = None,
        *,
        show_text: bool = False,
        bounds: "Bounds | None" = None,
    ) -> None:
        """Serve over HTTP until SIGINT or SIGTERM; ``on_ready`` is told the URL. Raises ConfigError."""
        from foredraft.server.door import run_server

        async with self._door(show_text, bounds) as door:
            await run_server(door, host=host, port=port, tls=tls, on_ready=on_ready)

    @asynccontextmanager
    async def _door(self, show_text: bool, bounds: "Bounds | None") -> AsyncIterator["Server"]:
        """The HTTP server, with OpenAI's routes over an edge in this process that streams from the target."""
        from foredraft.api.own_edge import OwnEdge
        from foredraft.openai_api.routes import OpenAiRoutes
        from foredraft.server.app import Server
        from foredraft.server.bounds import Bounds
        from foredraft.server.watching import Watching

        if self.tokenizer is None:
            raise ConfigError("a cloud without a tokenizer cannot listen: edges ask for it; give one to Cloud(...)")
        server = Server(
            self.service,
            card=self.target.card,
            tokenizer_json=self.tokenizer.json,
            chat=self.tokenizer.chat,
            keys=self.keys,
            bounds=replace(bounds or Bounds(), max_sessions=self._max_sessions),
            load=self._load,
        )
        live = Live(self.service.counters, keep_tokens=show_text)
        self.service.shared.observer = together(self._observer, live.observe)
        async with OwnEdge(self, self.keys, self._spans) as edge:
            prefix, chat = "foredraft_openai_", self.tokenizer.chat
            routes = OpenAiRoutes(edge, chat, server.registry, policy="cloud", prefix=prefix, spans=self._spans)

            def figures() -> dict[str, Any]:
                load, active = self._load(), self.service.counters.active
                busy = {} if load is None else asdict(load)
                seen = {"running": active, "connections": server.connections()}
                return {"end": "cloud", "model": routes.name} | seen | busy

            server.more_routes += [routes.add_to, Watching(live, figures, self.tokenizer).add_to]
            yield server

    def _load(self) -> Load | None:
        return load_of(self.target)

    async def close(self) -> None:
        """End the sessions of this process, then the target."""
        for session in list(self._sessions):
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        await self.target.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _grammars(tokenizer: Tokenizer, card: TargetCard) -> Grammars | None:
    """What holds texts to grammars; None without the library."""
    try:
        return Grammars(tokenizer.json, card.vocab_size, card.stop_tokens)
    except MissingExtraError:
        return None
