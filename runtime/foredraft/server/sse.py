"""Server-sent events: their form, and writing to clients of which some take nothing."""

import asyncio
import json
from typing import Any

from aiohttp import web

from foredraft.links.websocket import STALL_S


def event(data: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


async def write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Write, and cut a client that takes nothing for too long. Raises ConnectionError."""
    try:
        async with asyncio.timeout(STALL_S):
            await response.write(data)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client takes nothing") from None
