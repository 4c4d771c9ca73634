"""What all our HTTP servers have: a key, bounds, health, metrics, and a way to leave that loses nothing.

    GET /live      200 while the process runs
    GET /ready     200 while it takes work; 503 while it drains or is full
    GET /health    200, or 503 while it drains
    GET /metrics   for Prometheus; like all that a server adds, it needs the key
    GET /          a page to look at (``watching``), which shows nothing without the key

A peer can hurt only itself: connections, silence and the size of bodies are bounded.
"""

import asyncio
import contextlib
import dataclasses
import hmac
import logging
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from foredraft.errors import ConfigError
from foredraft.links.websocket import HEARTBEAT_S, STALL_S
from foredraft.protocol.events import LOG_OF_SESSIONS
from foredraft.server.listening import is_loopback

MAX_BODY_BYTES: Final = 8 << 20
RETRY_S: Final = 5
OPEN_TO_ALL: Final = ("/", "/live", "/ready", "/health")
_KEEPALIVE_S: Final = 15.0
# Health checks, scrapes and tokenizers come beside the sessions.
_SPARE_CONNECTIONS: Final = 32

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger("foredraft.server")
sessions_log = logging.getLogger(LOG_OF_SESSIONS)


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


class Door:
    """A server's entrance. A subclass adds its routes, says when it is full, and what leaving takes."""

    def __init__(self, api_key: str = "", bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.registry = CollectorRegistry()
        self.draining = False
        self.more_routes: list[Callable[[web.Application], None]] = []
        self._api_key = api_key.encode()
        self._silent: dict[asyncio.BaseProtocol, asyncio.TimerHandle] = {}

    def add_routes(self, app: web.Application) -> None:
        """The subclass's own resources."""

    def full(self) -> str:
        """Why it takes no more work at the moment; empty where it does."""
        return ""

    async def leave(self) -> None:
        """Tell whoever is served, and give them ``bounds.grace_s`` to go."""

    def refusal(self, status: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
        """An error as this server's peers expect it."""
        return web.json_response({"error": reason}, status=status, headers=headers)

    @property
    def protected(self) -> bool:
        """Whether a key is needed."""
        return bool(self._api_key)

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._gate], client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/live", self._live)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        self.add_routes(app)
        for add in self.more_routes:
            add(app)
        return app

    @web.middleware
    async def _gate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nothing but what is open to all without the key; what is refused is told to operators."""
        if (timer := self._silent.pop(request.protocol, None)) is not None:
            timer.cancel()
        if self._api_key and request.path not in OPEN_TO_ALL:
            scheme, _, key = request.headers.get("Authorization", "").partition(" ")
            right = hmac.compare_digest(key.strip().encode(errors="surrogateescape"), self._api_key)
            if scheme.lower() != "bearer" or not right:
                _refused(request, 401)
                return self.refusal(401, "the API key is missing or wrong", {"WWW-Authenticate": "Bearer"})
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            _refused(request, error.status)
            raise
        if answer.status >= 400 and request.path not in OPEN_TO_ALL:
            _refused(request, answer.status)
        return answer

    async def _live(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, _: web.Request) -> web.Response:
        return self._state(self.full())

    async def _health(self, _: web.Request) -> web.Response:
        return self._state("")

    def _state(self, full: str) -> web.Response:
        status = "draining" if self.draining else full or "ok"
        headers = {} if status == "ok" else {"Retry-After": str(RETRY_S)}
        return web.json_response({"status": status}, status=200 if status == "ok" else 503, headers=headers)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

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
        """Take no more work, and see whoever is served off."""
        self.draining = True
        await self.leave()
        for timer in self._silent.values():
            timer.cancel()
        self._silent.clear()


def _refused(request: web.Request, status: int) -> None:
    """A line for operators. Reasons may quote what was sent, and queries may hold anything, so they are left out."""
    fields = {"event": "refusal", "status": status, "method": request.method, "path": request.path}
    sessions_log.info(
        "refused %s %s: %d", request.method, request.path, status, extra={"fields": fields | {"peer": request.remote}}
    )


class _TurnedAway(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@contextlib.asynccontextmanager
async def serving(
    door: Door, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Listen; yields the server's URL, with the real port where ``port`` is 0. Drains at the end.

    While it drains it still answers, above all to those who ask whether it is ready.
    Raises ConfigError when the address cannot be listened on.
    """
    runner = web.AppRunner(
        door.app(),
        handle_signals=False,
        access_log=None,
        keepalive_timeout=_KEEPALIVE_S,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    try:
        if runner.server is None:
            raise RuntimeError("aiohttp's runner has no server after its setup")
        factory = door.watched(runner.server)
        try:
            listener = await asyncio.get_running_loop().create_server(
                factory, host, port, ssl=tls, ssl_handshake_timeout=door.bounds.silence_s if tls else None
            )
        except OSError as error:
            raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
        real_port = listener.sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host or "0.0.0.0"
        try:
            yield f"{'http' if tls is None else 'https'}://{shown}:{real_port}"
        finally:
            await door.drain()
            listener.close()
    finally:
        await runner.cleanup()


async def run_server(
    door: Door,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then drain. ``on_ready`` is told the URL. Raises ConfigError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    if not is_loopback(host) and not door.protected:
        log.warning(
            "WITHOUT AN API KEY on %s: everyone who can reach this machine can use the model. "
            "Set a key, or listen on 127.0.0.1.",
            host,
        )
    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C cancels instead, and drains too
        for number in signals:
            loop.add_signal_handler(number, stop.set)
    try:
        async with serving(door, host=host, port=port, tls=tls) as url:
            if on_ready is not None:
                on_ready(url)
            await stop.wait()
            log.info("stopping: sessions have %g s to leave", door.bounds.grace_s)
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in signals:
                loop.remove_signal_handler(number)
