"""The server on the device: OpenAI's interface in front of an edge."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aiohttp import web

from foredraft.keys import Keys
from foredraft.observe.live import Live
from foredraft.openai_api.errors import ApiError
from foredraft.openai_api.images import ImageSource
from foredraft.openai_api.routes import OpenAiRoutes
from foredraft.openai_api.texts import Texts
from foredraft.server.bounds import Bounds
from foredraft.server.door import Door
from foredraft.server.metrics import DraftCollector
from foredraft.server.watching import Watching
from foredraft.text.chat_card import ChatCard

if TYPE_CHECKING:
    from foredraft.observe.spans import Spans

_LOOK_S = 0.05


class EdgeServer(Door):
    """OpenAI's routes behind a door of their own. ``running``, ``waiting``: texts at once, and in line for that.

    ``bounds``: of peers, but for ``max_sessions``, which follows from these two. ``show_text``: whether whoever has
    the key may see texts on the server's page. ``local``, ``images``, ``spans``: as in ``OpenAiRoutes``.
    """

    def __init__(
        self,
        texts: Texts,
        card: ChatCard,
        *,
        policy: str | None = None,
        api_key: str = "",
        running: int = 16,
        waiting: int = 64,
        bounds: Bounds | None = None,
        show_text: bool = False,
        local: bool = False,
        images: ImageSource | None = None,
        spans: "Spans | None" = None,
    ) -> None:
        super().__init__(Keys.of(api_key), replace(bounds or Bounds(), max_sessions=4 * (running + waiting)))
        live = Live(round_trip_s=lambda: texts.round_trip_s, keep_tokens=show_text)
        self.routes = OpenAiRoutes(
            texts,
            card,
            self.registry,
            policy=policy,
            running=running,
            waiting=waiting,
            observer=live.observe,
            local=local,
            images=images,
            spans=spans,
        )
        self.registry.register(DraftCollector(live.counters))
        self._texts = texts
        self.more_routes.append(Watching(live, self._figures, texts.tokenizer).add_to)

    def _figures(self) -> dict[str, Any]:
        room = self.routes.room
        busy = {"running": room.running, "waiting": room.waiting}
        return {"end": "edge", "model": self.routes.name, "round_trip_s": self._texts.round_trip_s} | busy

    def add_routes(self, app: web.Application) -> None:
        """OpenAI's."""
        app.middlewares.append(_in_openais_form)
        self.routes.add_to(app)

    def full(self) -> str:
        """Whether nobody can even wait."""
        return self.routes.room.full()

    def refusal(self, status: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
        """An error in OpenAI's form."""
        return ApiError(status, reason, code="invalid_api_key" if status == 401 else None).response()

    async def leave(self) -> None:
        """Let the texts that run come to their end, for ``grace_s``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.bounds.grace_s):
                while self.routes.room.running:  # noqa: ASYNC110 - a drain may look now and then
                    await asyncio.sleep(_LOOK_S)


@web.middleware
async def _in_openais_form(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """What aiohttp itself refuses: a path or a method that there is not."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        said = f"{request.method} {request.path}: {error.reason}"
        return ApiError(error.status, said, code="unknown_url" if error.status == 404 else None).response()
