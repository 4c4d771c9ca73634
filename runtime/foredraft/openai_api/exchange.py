"""One HTTP exchange with a client: its request, its answer as a stream or an error, and whether it still waits.

A client that sends slowly, takes nothing or goes away costs a bounded time, and the server goes on.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web

from foredraft.errors import ForedraftError
from foredraft.openai_api.choices import Choice, Delta
from foredraft.openai_api.errors import ApiError, api_error_of, invalid
from foredraft.openai_api.requests import Asked
from foredraft.openai_api.responses import DONE, Answer, usage
from foredraft.server.door import MAX_BODY_BYTES
from foredraft.server.sse import event, write

_LOOK_S: Final = 0.2  # how often to see whether a client is still there
_BODY_S: Final = 60.0  # how long a client may take to send what it asks
_CLIENT_GONE: Final = 499  # as nginx calls it

log = logging.getLogger("foredraft.openai_api")

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def stream(
    request: web.Request,
    answer: Answer,
    choices: Sequence[Choice],
    first: Delta,
    deltas: AsyncGenerator[Delta, None],
    headers: dict[str, str],
    asked: Asked,
) -> web.StreamResponse:
    """The answer as server-sent events. An error in the middle is an event, too: the status has gone."""
    response = web.StreamResponse(headers=headers | {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    begun: set[int] = set()

    async def say(delta: Delta) -> None:
        chunk = answer.chunk(delta, first=delta.choice not in begun)
        if asked.continuous_usage:
            chunk["usage"] = usage(choices)
        await write(request, response, event(chunk))
        begun.add(delta.choice)

    try:
        await say(first)
        async for delta in deltas:
            await say(delta)
    except ConnectionError:
        raise
    except Exception as error:
        await write(request, response, event(_told(error).body()))
        return response
    if asked.include_usage:
        await write(request, response, event(answer.last_chunk(choices)))
    await write(request, response, DONE)
    return response


@contextlib.asynccontextmanager
async def while_there(request: web.Request) -> AsyncGenerator[None, None]:
    """Cancels the block when the client goes away; aiohttp tells a handler only when it writes."""
    working = asyncio.current_task()

    async def look() -> None:
        while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(_LOOK_S)
        if working is not None:
            working.cancel()

    looking = asyncio.create_task(look(), name="client there?")
    try:
        yield
    finally:
        looking.cancel()


async def body(request: web.Request) -> bytes:
    """What the client sends. Raises ApiError."""
    try:
        async with asyncio.timeout(_BODY_S):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise ApiError(413, f"the body is larger than {MAX_BODY_BYTES} bytes") from error
    except TimeoutError as error:
        raise ApiError(408, f"the body did not come within {_BODY_S:g} s") from error
    except web.RequestPayloadError as error:
        raise invalid(f"the body cannot be read: {error}") from error


async def answered(respond: Respond, request: web.Request) -> web.StreamResponse:
    """What the handler answers, or its error in OpenAI's form."""
    try:
        return await respond(request)
    except ConnectionError:
        return web.Response(status=_CLIENT_GONE)  # nobody is there to hear it
    except Exception as error:
        return _told(error).response()


def _told(error: Exception) -> ApiError:
    """What a client hears of what went wrong."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ForedraftError):
        return api_error_of(error)
    log.error("an answer failed", exc_info=error)
    return ApiError(500, "the answer failed; the server's log says why")
