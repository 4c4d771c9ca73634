"""Something to look at: a page that lives, and the stream of events that it draws.

GET /           the page; it is the same for everybody and tells nothing by itself
GET /v1/watch   server-sent events, two a second: figures, the texts, and the lanes of one of them
                    (?text=NAME, the youngest if none; ?seconds=S, how far back)
"""

import asyncio
import contextlib
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Final

from aiohttp import web

from foredraft.observe.live import KEPT_S, Live
from foredraft.server.door import RETRY_S
from foredraft.server.sse import event, write
from foredraft.text.tokenizer import Tokenizer

PERIOD_S: Final = 0.5
OVER_S: Final = 1.5
"""A text of which nothing was heard for so long is left for another one."""
MOST_WATCHERS: Final = 16
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Watching:
    """Shows what ``live`` heard. ``figures``: what else there is to say, as JSON has it.

    ``tokenizer``: where texts may be shown, and ``live`` keeps their tokens.
    """

    def __init__(self, live: Live, figures: Callable[[], dict[str, Any]], tokenizer: Tokenizer | None = None) -> None:
        self._live, self._figures = live, figures
        self._tokenizer = tokenizer if live.keeps_tokens else None
        self._watchers = 0
        self._closing = asyncio.Event()

    def add_to(self, app: web.Application) -> None:
        """Put the routes into an application."""
        app.router.add_get("/", self._page)
        app.router.add_get("/v1/watch", self._watch)
        app.on_shutdown.append(self._close)

    async def _close(self, _: web.Application) -> None:
        self._closing.set()

    async def _page(self, _: web.Request) -> web.Response:
        page = files("foredraft.server").joinpath("page.html").read_text(encoding="utf-8")
        return web.Response(text=page, content_type="text/html", headers=_HEADERS)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if self._watchers >= MOST_WATCHERS:
            reason = {"error": f"{MOST_WATCHERS} are watching already"}
            return web.json_response(reason, status=503, headers={"Retry-After": str(RETRY_S)})
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        self._watchers += 1
        try:
            await response.prepare(request)
            wanted, watched, last_s = request.query.get("text", ""), "", _seconds(request.query.get("seconds", ""))
            while not self._closing.is_set():
                watched = self._choose(wanted, watched)
                await write(request, response, event(self._state(watched, last_s)))
                await self._pause()
        except ConnectionError:
            pass  # the watcher has gone, or takes nothing
        finally:
            self._watchers -= 1
        return response

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PERIOD_S):
                await self._closing.wait()

    def _choose(self, wanted: str, watched: str) -> str:
        """Which text's lanes to show: the one that is wanted, the one that was shown while it goes on, the youngest."""
        texts = self._live.texts()
        if wanted in (text["name"] for text in texts):
            return wanted
        if watched in (text["name"] for text in texts if text["idle_s"] < OVER_S):
            return watched
        return texts[0]["name"] if texts else ""

    def _state(self, name: str, last_s: float) -> dict[str, Any]:
        """What one event says, with the lanes of text ``name``."""
        counters = self._live.counters
        state: dict[str, Any] = self._figures() | {
            "texts": self._live.texts(),
            "watched": name,
            "lanes": self._live.lanes(name, last_s),
            "tokens": counters.tokens,
            "passes": counters.passes,
            "drafts": counters.drafts,
            "drafted": counters.drafted,
            "accepted": counters.accepted,
            "accepted_at": counters.accepted_at,
            "hints": {str(layer): [count.said, count.right] for layer, count in sorted(counters.by_layer.items())},
        }
        if self._tokenizer is not None:
            state["shown"] = self._tokenizer.decode(self._live.last_tokens(name))
        return state


def _seconds(said: str) -> float:
    """How far back lanes go: what a watcher asks for, as far as it is known."""
    return min(float(said), KEPT_S) if said.isdecimal() else KEPT_S
