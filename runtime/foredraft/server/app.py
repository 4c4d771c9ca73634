"""The cloud's HTTP server: sessions over WebSocket, and what an edge must know beforehand.

    GET /v1/session            WebSocket; each connection is handed to the service
    GET /v1/model              the target's card, as JSON
    GET /v1/tokenizer/DIGEST   the bytes of tokenizer.json
    GET /v1/probe              WebSocket; bounded echoes and streams, for measuring the link
    GET /metrics               counters, for Prometheus
    GET /health                200 while it serves; needs no key

A peer can hurt only itself: connections, silence, message sizes and unread bytes are bounded,
and whatever fails in one session is logged and answered there.
"""

import asyncio
import contextlib
import dataclasses
import hmac
import logging
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from foredraft.cloud.session import Counters
from foredraft.errors import ConfigError, ForedraftError
from foredraft.links.address import MODEL_PATH, PROBE_PATH, SESSION_PATH, TOKENIZER_PATH
from foredraft.links.probing import MOST_CONNECTIONS, serve_probe
from foredraft.links.websocket import HEARTBEAT_S, STALL_S, WebSocketLink, accept
from foredraft.protocol.messages import INTERNAL, PROTOCOL_VERSION, Refused
from foredraft.protocol.ports import Link, TargetCard
from foredraft.server.listening import is_loopback
from foredraft.server.metrics import ServiceCollector
from foredraft.text.tokenizer import tokenizer_digest

DEFAULT_PORT: Final = 8471
_KEEPALIVE_S: Final = 15.0
_RETRY_S: Final = 5
# Health checks, scrapes and tokenizers come beside the sessions.
_SPARE_CONNECTIONS: Final = 32

log = logging.getLogger("foredraft.server")


class Service(Protocol):
    """What the server serves; ``cloud.service.CloudService`` is one."""

    @property
    def counters(self) -> Counters:
        """What it has done since it started."""

    async def handle(self, link: Link) -> None:
        """Serve one connection until it closes."""

    def make_room(self) -> bool:
        """Give up a connection that nobody uses at the moment, if there is one."""

    def drain(self, retry_after_s: float = 0.0) -> None:
        """Tell every edge that this server is going away."""


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """What one peer, or all of them together, may take.

    ``silence_s``: until a new connection has said what it wants. ``stall_s``: how long a peer
    may take nothing while bytes wait for it. ``grace_s``: how long sessions may use to leave
    after Drain.
    """

    max_sessions: int = 64
    silence_s: float = 10.0
    stall_s: float = STALL_S
    heartbeat_s: float = HEARTBEAT_S
    grace_s: float = 2.0


class Server:
    """The routes and the connections of one service."""

    def __init__(
        self,
        service: Service,
        *,
        card: TargetCard,
        tokenizer_json: bytes,
        api_key: str = "",
        bounds: Bounds | None = None,
    ) -> None:
        self.bounds = bounds or Bounds()
        self._service = service
        self._card = dataclasses.asdict(card) | {"protocol": PROTOCOL_VERSION}
        self._tokenizer_json = tokenizer_json
        self._tokenizer_digest = tokenizer_digest(tokenizer_json)
        self._api_key = api_key.encode()
        self._draining = False
        self._taken = 0
        self._probes = 0
        self._links: set[WebSocketLink] = set()
        self._none_left = asyncio.Event()
        self._silent: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}
        self._registry = CollectorRegistry()
        self._registry.register(ServiceCollector(service.counters, lambda: len(self._links)))

    @property
    def protected(self) -> bool:
        """Whether a key is needed."""
        return bool(self._api_key)

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._gate])
        app.router.add_get("/health", self._health)
        app.router.add_get(f"/{SESSION_PATH}", self._session)
        app.router.add_get(f"/{PROBE_PATH}", self._probe)
        app.router.add_get(f"/{MODEL_PATH}", self._model)
        app.router.add_get(f"/{TOKENIZER_PATH}/{{digest}}", self._tokenizer)
        app.router.add_get("/metrics", self._metrics)
        return app

    @web.middleware
    async def _gate(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Nothing but /health without the key."""
        if (timer := self._silent.pop(request.protocol, None)) is not None:
            timer.cancel()
        if self._api_key and request.path != "/health":
            scheme, _, key = request.headers.get("Authorization", "").partition(" ")
            right = hmac.compare_digest(key.strip().encode(errors="surrogateescape"), self._api_key)
            if scheme.lower() != "bearer" or not right:
                return _refusal(401, "the API key is missing or wrong", {"WWW-Authenticate": "Bearer"})
        return await handler(request)

    async def _session(self, request: web.Request) -> web.StreamResponse:
        full = self._taken >= self.bounds.max_sessions and not self._service.make_room()
        if self._draining or full:
            reason = "going away" if self._draining else f"all {self.bounds.max_sessions} connections are taken"
            return _refusal(503, reason, {"Retry-After": str(_RETRY_S)})
        self._taken += 1
        try:
            link, response = await accept(request, heartbeat_s=self.bounds.heartbeat_s, stall_s=self.bounds.stall_s)
            await self._serve(link, request.remote)
        finally:
            self._taken -= 1
        return response

    async def _serve(self, link: WebSocketLink, remote: str | None) -> None:
        """One connection's whole life; what fails in it ends here."""
        self._links.add(link)
        try:
            await self._service.handle(link)
        except Exception:
            log.exception("the session of %s failed", remote)
            with contextlib.suppress(ForedraftError):
                await link.send(Refused(0, INTERNAL, "the session failed; the server's log says why"))
        finally:
            await link.close()
            self._links.discard(link)
            if not self._links:
                self._none_left.set()

    async def _probe(self, request: web.Request) -> web.StreamResponse:
        if self._draining or self._probes >= MOST_CONNECTIONS:
            reason = "going away" if self._draining else f"{MOST_CONNECTIONS} links are being measured"
            return _refusal(503, reason, {"Retry-After": str(_RETRY_S)})
        self._probes += 1
        try:
            return await serve_probe(request)
        finally:
            self._probes -= 1

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _model(self, _: web.Request) -> web.Response:
        return web.json_response(self._card)

    async def _tokenizer(self, request: web.Request) -> web.Response:
        digest = self._tokenizer_digest
        if request.match_info["digest"] != digest:
            return _refusal(404, f"no such tokenizer here; this server's is {digest}")
        headers = {"ETag": f'"{digest}"', "Cache-Control": "private, max-age=31536000, immutable"}
        if any(tag.value == digest for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=self._tokenizer_json, content_type="application/json", headers=headers)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def watched(self, server: web.Server) -> Callable[[], asyncio.BaseProtocol]:
        """A protocol factory that drops connections that say nothing, and those that are too many."""
        loop = asyncio.get_running_loop()

        def drop(protocol: web.RequestHandler) -> None:
            self._silent.pop(protocol, None)
            if protocol.transport is not None:
                protocol.transport.abort()

        def new_protocol() -> asyncio.BaseProtocol:
            if len(server.connections) >= self.bounds.max_sessions + _SPARE_CONNECTIONS:
                return _TurnedAway()
            protocol = server()
            self._silent[protocol] = loop.call_later(self.bounds.silence_s, drop, protocol)
            return protocol

        return new_protocol

    async def drain(self) -> None:
        """Say Drain to every session, let them leave for ``grace_s``, then close their links."""
        self._draining = True
        self._service.drain()
        self._none_left.clear()
        if self._links:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.bounds.grace_s):
                    await self._none_left.wait()
        await asyncio.gather(*(link.close() for link in list(self._links)))
        for timer in self._silent.values():
            timer.cancel()
        self._silent.clear()


class _TurnedAway(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": reason}, status=status, headers=headers)


@contextlib.asynccontextmanager
async def serving(
    server: Server, *, host: str = "127.0.0.1", port: int = DEFAULT_PORT, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Listen; yields the server's URL, with the real port where ``port`` is 0. Drains at the end.

    Raises ConfigError when the address cannot be listened on.
    """
    runner = web.AppRunner(
        server.app(), handle_signals=False, access_log=None, keepalive_timeout=_KEEPALIVE_S, shutdown_timeout=1.0
    )
    await runner.setup()
    try:
        if runner.server is None:
            raise RuntimeError("aiohttp's runner has no server after its setup")
        factory = server.watched(runner.server)
        try:
            listener = await asyncio.get_running_loop().create_server(
                factory, host, port, ssl=tls, ssl_handshake_timeout=server.bounds.silence_s if tls else None
            )
        except OSError as error:
            raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
        real_port = listener.sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host or "0.0.0.0"
        try:
            yield f"{'http' if tls is None else 'https'}://{shown}:{real_port}"
        finally:
            listener.close()
            await server.drain()
    finally:
        await runner.cleanup()


async def run_server(
    server: Server,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    tls: ssl.SSLContext | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then drain. ``on_ready`` is told the URL. Raises ConfigError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    if not is_loopback(host) and not server.protected:
        log.warning(
            "WITHOUT AN API KEY on %s: everyone who can reach this machine can use the model. "
            "Set a key, or listen on 127.0.0.1.",
            host,
        )
    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C cancels instead, and drains too
        for number in signals:
            loop.add_signal_handler(number, stop.set)
    try:
        async with serving(server, host=host, port=port, tls=tls) as url:
            if on_ready is not None:
                on_ready(url)
            await stop.wait()
            log.info("stopping: sessions have %g s to leave", server.bounds.grace_s)
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in signals:
                loop.remove_signal_handler(number)
