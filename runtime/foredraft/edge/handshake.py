"""The first words on a connection, as the edge says them: Hello, and what the cloud makes of it."""

import asyncio
from collections.abc import Awaitable
from typing import Final

import msgspec

from foredraft.errors import LinkClosedError, ProtocolError, RefusedError
from foredraft.protocol.messages import BUSY, PROTOCOL_VERSION, Drain, Hello, Ready, Refused
from foredraft.protocol.ports import Link

HANDSHAKE_S: Final = 20.0


async def shake_hands(link: Link, api_key: str = "") -> Ready:
    """Introduce ourselves; what the cloud serves. Raises as ``welcome``."""
    await link.send(Hello(PROTOCOL_VERSION, api_key))
    return await welcome(link)


async def welcome(link: Link) -> Ready:
    """The cloud's answer to Hello.

    Raises RefusedError when it does not let us in, ProtocolError when it answers in no way that
    we understand, LinkClosedError.
    """
    answer = await link.receive()
    if isinstance(answer, Refused):
        raise RefusedError(answer.code, answer.reason, answer.retry_after_s)
    if isinstance(answer, Drain):
        raise RefusedError(BUSY, "the server is going away", answer.retry_after_s)
    if not isinstance(answer, Ready):
        raise ProtocolError(f"the cloud answered Hello with {type(answer).__name__}")
    if answer.version != PROTOCOL_VERSION:
        raise ProtocolError(f"the cloud speaks protocol {answer.version}, this edge {PROTOCOL_VERSION}")
    return answer


async def in_time(handshake: Awaitable[Ready]) -> Ready:
    """The handshake's result. Raises LinkClosedError when it takes too long, so that it is tried again."""
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            return await handshake
    except TimeoutError:
        raise LinkClosedError(f"the cloud did not answer Hello within {HANDSHAKE_S:g} s") from None


def same_service(one: Ready, other: Ready) -> bool:
    """Whether a session that was opened for one is right for the other: all is equal but how long passes take."""
    return _timeless(one) == _timeless(other)


def _timeless(ready: Ready) -> Ready:
    return msgspec.structs.replace(ready, pass_s=0.0, passes_s=())
