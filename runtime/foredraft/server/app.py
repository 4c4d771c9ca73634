"""The cloud's HTTP server: sessions over WebSocket, and what an edge must know beforehand.

    GET /v1/session            WebSocket; each connection is handed to the service
    GET /v1/model              the target's card, as JSON
    GET /v1/tokenizer/DIGEST   the bytes of tokenizer.json
    GET /v1/chat               the model's name, chat template and sampling, as JSON
    GET /v1/probe              WebSocket; bounded echoes and streams, for measuring the link

What all servers have is in ``door``. Whatever fails in one session is logged and answered there.
"""

import asyncio
import contextlib
import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from aiohttp import web

from foredraft.errors import ForedraftError, LinkClosedError
from foredraft.keys import Key, Keys
from foredraft.links.address import CHAT_PATH, MODEL_PATH, PROBE_PATH, SESSION_PATH, TOKENIZER_PATH
from foredraft.links.probing import MOST_CONNECTIONS, serve_probe
from foredraft.links.websocket import accept
from foredraft.protocol.counters import Counters
from foredraft.protocol.messages import INTERNAL, PROTOCOL_VERSION, Drain, Refused
from foredraft.protocol.ports import Link, Load, TargetCard
from foredraft.server.bounds import Bounds
from foredraft.server.door import RETRY_S, Door, key_of_request
from foredraft.server.metrics import DraftCollector, ServiceCollector
from foredraft.text.chat_card import ChatCard
from foredraft.text.tokenizer import tokenizer_digest

log = logging.getLogger("foredraft.server")


class Service(Protocol):
    """What the server serves; ``cloud.service.CloudService`` is one."""

    @property
    def counters(self) -> Counters:
        """What it has done since it started."""

    async def handle(self, link: Link) -> None:
        """Serve one connection until it closes."""

    def make_room(self, links: Collection[Link]) -> bool:
        """Give up one of these connections that nobody uses at the moment, if there is one."""

    def drain(self, retry_after_s: float = 0.0) -> None:
        """Tell every edge that this server is going away."""

    def turn_out(self) -> None:
        """End the connections whose key is no longer valid."""


class Server(Door):
    """The routes and the connections of one service."""

    def __init__(
        self,
        service: Service,
        *,
        card: TargetCard,
        tokenizer_json: bytes,
        chat: ChatCard | None = None,
        keys: Keys | None = None,
        bounds: Bounds | None = None,
        load: Callable[[], Load | None] = lambda: None,
    ) -> None:
        """``load``: how busy the target is, where that is known."""
        super().__init__(keys or Keys.of(""), bounds)
        self._service = service
        self._card = dataclasses.asdict(card) | {"protocol": PROTOCOL_VERSION}
        self._tokenizer_json = tokenizer_json
        self._tokenizer_digest = tokenizer_digest(tokenizer_json)
        self._chat_json = (chat or ChatCard()).to_json()
        self._taken = 0
        self._held = Counter[str]()  # connections, by the name of their key
        self._probes = 0
        self._links: set[Link] = set()
        self._none_left = asyncio.Event()
        self.registry.register(ServiceCollector(service.counters, self.connections, load))
        self.registry.register(DraftCollector(service.counters))

    def add_routes(self, app: web.Application) -> None:
        """What edges ask for."""
        app.router.add_get(f"/{SESSION_PATH}", self._session)
        app.router.add_get(f"/{PROBE_PATH}", self._probe)
        app.router.add_get(f"/{MODEL_PATH}", self._model)
        app.router.add_get(f"/{CHAT_PATH}", self._chat)
        app.router.add_get(f"/{TOKENIZER_PATH}/{{digest}}", self._tokenizer)

    def connections(self) -> int:
        """How many edges are connected."""
        return len(self._links)

    def full(self) -> str:
        """Whether all places are taken."""
        if self._taken < self.bounds.max_sessions:
            return ""
        return f"all {self.bounds.max_sessions} connections are taken"

    def refuses(self, key: Key) -> tuple[int, str] | None:
        """Why this key gets no further connection now, with HTTP's status for it; None where it does."""
        reason = "going away" if self.draining else self.full()
        if self.draining or (reason and not self._service.make_room(self._links)):
            return 503, reason
        if 0 < key.connections <= self._held[key.name]:
            return 429, f"the key {key.name!r} has its {key.connections} connections (limit: connections)"
        return None

    @contextlib.contextmanager
    def place(self, key: Key) -> Iterator[None]:
        """A place that is taken by a connection of this key."""
        self._held[key.name] += 1
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
            self._held[key.name] -= 1

    async def _session(self, request: web.Request) -> web.StreamResponse:
        key = key_of_request.get()
        if (refused := self.refuses(key)) is not None:
            return self.refusal(*refused, {"Retry-After": str(RETRY_S)})
        with self.place(key):
            link, response = await accept(request, heartbeat_s=self.bounds.heartbeat_s, stall_s=self.bounds.stall_s)
            await self.serve(link, request.remote)
        return response

    async def serve(self, link: Link, remote: str | None = None) -> None:
        """One connection's whole life; what fails in it ends here."""
        self._links.add(link)
        try:
            if self.draining:  # it was let in as that began, and nobody has told it
                with contextlib.suppress(LinkClosedError):
                    await link.send(Drain())
            else:
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
        if self.draining or self._probes >= MOST_CONNECTIONS:
            reason = "going away" if self.draining else f"{MOST_CONNECTIONS} links are being measured"
            return self.refusal(503, reason, {"Retry-After": str(RETRY_S)})
        self._probes += 1
        try:
            return await serve_probe(request)
        finally:
            self._probes -= 1

    async def _model(self, _: web.Request) -> web.Response:
        return web.json_response(self._card)

    async def _chat(self, _: web.Request) -> web.Response:
        return web.Response(body=self._chat_json, content_type="application/json")

    async def _tokenizer(self, request: web.Request) -> web.Response:
        digest = self._tokenizer_digest
        if request.match_info["digest"] != digest:
            return self.refusal(404, f"no such tokenizer here; this server's is {digest}")
        headers = {"ETag": f'"{digest}"', "Cache-Control": "private, max-age=31536000, immutable"}
        if any(tag.value == digest for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=self._tokenizer_json, content_type="application/json", headers=headers)

    def turn_out(self) -> None:
        """End the connections whose key is no longer valid."""
        self._service.turn_out()

    async def leave(self) -> None:
        """Say Drain to every session, let them leave for ``grace_s``, then close their links."""
        self._service.drain()
        self._none_left.clear()
        if self._links:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.bounds.grace_s):
                    await self._none_left.wait()
        await asyncio.gather(*(link.close() for link in list(self._links)))
