"""What all our HTTP servers have: a key, bounds, health, metrics, and a way to leave that loses nothing.

    GET /live      200 while the process runs
    GET /ready     200 while it takes work; 503 while it drains or is full
    GET /health    200, or 503 while it drains
    GET /metrics   for Prometheus; like all that a server adds, it needs the key
    GET /          a page to look at (``watching``), which shows nothing without the key

A peer can hurt only itself: connections, silence and the size of bodies are bounded. Who shows no key has one answer,
and makes room (``entrance``).
"""

import asyncio
import contextlib
import logging
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from foredraft.errors import ConfigError
from foredraft.keys import EVERYBODY, METRICS, PROBE, SERVE, Key, Keys
from foredraft.links.address import PROBE_PATH
from foredraft.protocol.events import LOG_OF_SESSIONS
from foredraft.server.bounds import Bounds
from foredraft.server.entrance import Entrance
from foredraft.server.listening import is_loopback
from foredraft.server.strangers import REASONS

MAX_BODY_BYTES: Final = 8 << 20
RETRY_S: Final = 5
OPEN_TO_ALL: Final = ("/", "/live", "/ready", "/health")
ROLE_OF: Final = {"/metrics": METRICS, "/v1/watch": METRICS, f"/{PROBE_PATH}": PROBE}
"""What a key must be for, where that is not to have texts."""

KEYS_LOOK_S: Final = 0.5
"""How often a file of keys is looked at."""

_KEEPALIVE_S: Final = 15.0
# Health checks, scrapes and tokenizers come beside the sessions.
_SPARE_CONNECTIONS: Final = 32

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

key_of_request: ContextVar[Key] = ContextVar("key_of_request", default=EVERYBODY)
"""Whose request is answered; what a handler starts is theirs, too."""

log = logging.getLogger("foredraft.server")
sessions_log = logging.getLogger(LOG_OF_SESSIONS)


class Door:
    """A server's entrance. A subclass adds its routes, says when it is full, and what leaving takes."""

    def __init__(self, keys: Keys, bounds: Bounds | None = None) -> None:
        self.keys = keys
        self.bounds = bounds or Bounds()
        self.registry = CollectorRegistry()
        self.draining = False
        self.more_routes: list[Callable[[web.Application], None]] = []
        self.entrance: Entrance | None = None  # while it listens
        self._turned_away = Counter(
            "foredraft_turned_away",
            "Connections that ended before a key was shown, by reason.",
            ["reason"],
            registry=self.registry,
        )
        for reason in REASONS:
            self._turned_away.labels(reason)

    def add_routes(self, app: web.Application) -> None:
        """The subclass's own resources."""

    def full(self) -> str:
        """Why it takes no more work at the moment; empty where it does."""
        return ""

    async def leave(self) -> None:
        """Tell whoever is served, and give them ``bounds.grace_s`` to go."""

    def turn_out(self) -> None:
        """End what is done with keys that are no longer valid."""

    async def watch_keys(self) -> None:
        """Look at the keys now and then, and turn out whose key has gone or expired."""
        while self.keys.may_change:
            await asyncio.sleep(KEYS_LOOK_S)
            await asyncio.to_thread(self.keys.reload)
            self.turn_out()

    def refusal(self, status: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
        """An error as this server's peers expect it."""
        return web.json_response({"error": reason}, status=status, headers=headers)

    @property
    def protected(self) -> bool:
        """Whether a key is needed."""
        return self.keys.needed

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
        if request.path in OPEN_TO_ALL:
            return self._only_answer(request, await handler(request))
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        key = self.keys.find(secret.strip() if scheme.lower() == "bearer" else "")
        if key is None:
            _refused(request, 401, "")
            refusal = self.refusal(401, "the API key is missing or wrong", {"WWW-Authenticate": "Bearer"})
            return self._only_answer(request, refusal)
        if self.entrance is not None:
            self.entrance.key_shown(request.protocol)
        role = ROLE_OF.get(request.path, SERVE)
        if role not in key.roles:
            _refused(request, 403, key.name)
            return self.refusal(403, f"the key {key.name!r} is not for this: it lacks the role {role!r}")
        key_of_request.set(key)
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            _refused(request, error.status, key.name)
            raise
        if answer.status >= 400:
            _refused(request, answer.status, key.name)
        return answer

    def _only_answer(self, request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
        """An answer to somebody who has shown no key ends the connection: a place is for those who have."""
        if self.entrance is not None and not self.entrance.knows(request.protocol):
            answer.force_close()
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

    def opened(self, server: web.Server, tls: ssl.SSLContext | None) -> Entrance:
        """The way in to aiohttp's server."""
        self.entrance = Entrance(
            self.bounds,
            self.bounds.max_sessions + _SPARE_CONNECTIONS,
            server,
            lambda reason: self._turned_away.labels(reason).inc(),
            tls,
        )
        return self.entrance

    async def drain(self) -> None:
        """Take no more work, and see whoever is served off."""
        self.draining = True
        await self.leave()


def _refused(request: web.Request, status: int, key: str) -> None:
    """A line for operators. Reasons may quote what was sent, and queries may hold anything, so they are left out."""
    fields = {"event": "refusal", "key": key, "status": status, "method": request.method, "path": request.path}
    sessions_log.info(
        "refused %s %s: %d", request.method, request.path, status, extra={"fields": fields | {"peer": request.remote}}
    )


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
    watcher: asyncio.Task[None] | None = None
    try:
        if runner.server is None:
            raise RuntimeError("aiohttp's runner has no server after its setup")
        entrance = door.opened(runner.server, tls)
        try:
            listener = await asyncio.get_running_loop().create_server(entrance.visitor, host, port)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
        real_port = listener.sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host or "0.0.0.0"
        watcher = asyncio.create_task(door.watch_keys(), name="keys")
        try:
            yield f"{'http' if tls is None else 'https'}://{shown}:{real_port}"
        finally:
            await door.drain()
            listener.close()
            entrance.close()
    finally:
        await runner.cleanup()
        if watcher is not None:  # to the end of the last text: a key may be revoked while the server drains
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


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
