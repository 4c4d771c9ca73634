"""Measuring the way to a server: small echoes for the round trip, streams of bytes for the rates.

The server's end is one WebSocket route, which a peer cannot use for more than it is for: bytes,
messages and time of a connection are bounded, and so is the number of connections. Durations are
each end's own; clocks of two machines are never subtracted.

Messages are binary; the first byte says what they are. ECHO comes back as it is. SINK is only
counted, until REPORT asks how many bytes came in how many seconds from the first to the last.
STREAM (four bytes of a count) asks for so many bytes, in messages of CHUNK_BYTES.
"""

import asyncio
import ssl as ssl_module
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Final

import aiohttp
import msgspec
from aiohttp import web

from foredraft.errors import LinkClosedError, ProtocolError
from foredraft.links.address import PROBE_PATH, auth_headers, endpoint
from foredraft.links.http_proxies import proxy_for
from foredraft.links.websocket import no_redirects, raise_unreachable

ECHO, SINK, REPORT, STREAM = 0, 1, 2, 3
ECHO_BYTES: Final = 32  # about what a message of a session has
CHUNK_BYTES: Final = 16 << 10
MOST_BYTES: Final = 32 << 20  # each way, of one connection
MOST_MESSAGES: Final = 50_000
MOST_SECONDS: Final = 330.0
MOST_SILENT_S: Final = 15.0
MOST_CONNECTIONS: Final = 2

_FIRST_BYTES: Final = 64 << 10
_LONG_ENOUGH_S: Final = 0.6
_CONNECTS: Final = 3
_MOST_PAUSE_S: Final = 0.02
_MOST_ECHO_S: Final = 10.0


class Sunk(msgspec.Struct, frozen=True, array_like=True):
    """What a SINK took: bytes after the first message, and seconds from the first message to the last."""

    size_bytes: int
    seconds: float


Transfer = Callable[[aiohttp.ClientWebSocketResponse, int], Awaitable[Sunk]]


async def serve_probe(request: web.Request) -> web.StreamResponse:
    """The server's end of one connection; returns when it ends, or goes beyond what it may."""
    ws = web.WebSocketResponse(compress=False, max_msg_size=CHUNK_BYTES + 1, timeout=1.0)
    await ws.prepare(request)
    try:
        async with asyncio.timeout(MOST_SECONDS):
            refused = await _Answers(ws).run()
    except TimeoutError:
        refused = f"a connection may measure for {MOST_SECONDS:g} s"
    except (ConnectionError, aiohttp.ClientError):
        return ws
    if refused:
        await ws.close(code=aiohttp.WSCloseCode.POLICY_VIOLATION, message=refused.encode())
    return ws


class _Answers:
    """What the server answers on one connection, and what it has cost so far."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self._ws = ws
        self._bytes_in = self._bytes_out = self._messages = 0
        self._sunk_bytes = 0
        self._sunk_first_s = self._sunk_last_s = 0.0

    async def run(self) -> str:
        """Answer until the peer leaves; why it may not go on, if it may not."""
        while True:
            try:
                async with asyncio.timeout(MOST_SILENT_S):
                    message = await self._ws.receive()
            except TimeoutError:
                return f"nothing was asked for {MOST_SILENT_S:g} s"
            if message.type is aiohttp.WSMsgType.BINARY and message.data:
                refused = await self._answer(message.data)
                if refused:
                    return refused
            elif message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                return "a message that is none of echo, sink, report, stream"
            else:  # the end, one way or another
                return ""

    async def _answer(self, data: bytes) -> str:
        self._messages += 1
        self._bytes_in += len(data)
        if self._bytes_in > MOST_BYTES or self._messages > MOST_MESSAGES:
            return f"a connection may send {MOST_BYTES} bytes in {MOST_MESSAGES} messages"
        kind = data[0]
        if kind == ECHO:
            await self._send(data)
        elif kind == SINK:
            self._sink(len(data))
        elif kind == REPORT:
            await self._send(msgspec.msgpack.encode(Sunk(self._sunk_bytes, self._sunk_last_s - self._sunk_first_s)))
            self._sunk_bytes, self._sunk_first_s = 0, 0.0
        elif kind == STREAM and len(data) == 5:
            return await self._stream(int.from_bytes(data[1:]))
        else:
            return "a message that is none of echo, sink, report, stream"
        return ""

    def _sink(self, size: int) -> None:
        self._sunk_last_s = time.perf_counter()
        if self._sunk_first_s:
            self._sunk_bytes += size
        else:
            self._sunk_first_s = self._sunk_last_s

    async def _stream(self, size: int) -> str:
        if self._bytes_out + size > MOST_BYTES:
            return f"a connection may ask for {MOST_BYTES} bytes"
        for start in range(0, size, CHUNK_BYTES):
            await self._send(bytes(min(CHUNK_BYTES, size - start)))
        return ""

    async def _send(self, data: bytes) -> None:
        self._bytes_out += len(data)
        await self._ws.send_bytes(data)


@dataclass(frozen=True, slots=True)
class LinkSamples:
    """What was measured of a link, in seconds and bits per second.

    ``rates_bps``: of each transfer, later ones larger; the last of each way is the one to believe.
    """

    server: str
    round_trips_s: tuple[float, ...]
    connects_s: tuple[float, ...]
    up_bps: tuple[float, ...]
    down_bps: tuple[float, ...]
    seconds: float


async def probe(
    server: str,
    *,
    seconds: float = 10.0,
    api_key: str = "",
    ssl: ssl_module.SSLContext | None = None,
    timeout_s: float = 10.0,
    progress: Callable[[float], None] | None = None,
) -> LinkSamples:
    """Measure the link to ``server`` for about so many seconds: two thirds of them echoes.

    Raises ConfigError, UnreachableError, RefusedError, ProtocolError, LinkClosedError.
    """
    began_s = time.perf_counter()
    tell = progress or (lambda share: None)
    connector = None if ssl is None else aiohttp.TCPConnector(ssl=ssl)
    session = aiohttp.ClientSession(headers=auth_headers(api_key), connector=connector, trace_configs=[no_redirects()])
    async with session:
        connects_s = []
        for _ in range(_CONNECTS - 1):
            connect_s, ws = await _connect(session, server, timeout_s)
            connects_s.append(connect_s)
            await ws.close()
        connect_s, ws = await _connect(session, server, timeout_s)
        try:
            round_trips_s = await _echoes(ws, seconds * 2 / 3, lambda share: tell(share * 2 / 3))
            up_bps = await _rates(ws, _send_up, seconds / 6)
            tell(5 / 6)
            down_bps = await _rates(ws, _ask_down, seconds / 6)
            tell(1.0)
        except (ConnectionError, aiohttp.ClientError) as error:
            raise LinkClosedError(f"the link is lost: {error}") from error
        except TimeoutError as error:
            raise LinkClosedError(f"{server} stopped answering for {_MOST_ECHO_S:g} s while it was measured") from error
        finally:
            await ws.close()
    taken_s = time.perf_counter() - began_s
    return LinkSamples(server, tuple(round_trips_s), (*connects_s, connect_s), tuple(up_bps), tuple(down_bps), taken_s)


async def _connect(
    session: aiohttp.ClientSession, server: str, timeout_s: float
) -> tuple[float, aiohttp.ClientWebSocketResponse]:
    """A new connection, and the seconds until the first message could leave on it."""
    began_s = time.perf_counter()
    address = endpoint(server, PROBE_PATH)
    proxy = proxy_for(address)
    way = None if proxy is None else proxy.url
    try:
        async with asyncio.timeout(timeout_s):
            ws = await session.ws_connect(address, proxy=way, compress=0, max_msg_size=CHUNK_BYTES + 1)
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise_unreachable(error, server, timeout_s, proxy)
        raise
    return time.perf_counter() - began_s, ws


async def _echoes(ws: aiohttp.ClientWebSocketResponse, seconds: float, tell: Callable[[float], None]) -> list[float]:
    """Round trips of small messages, one after another, at the pace of a session; at least ten."""
    random, payload = Random(0), bytes([ECHO]) + bytes(ECHO_BYTES - 1)
    times_s: list[float] = []
    began_s = time.perf_counter()
    while (spent_s := time.perf_counter() - began_s) < seconds or len(times_s) < 10:
        sent_s = time.perf_counter()
        await ws.send_bytes(payload)
        if await _bytes(ws) != payload:
            raise ProtocolError("an echo came back changed")
        times_s.append(time.perf_counter() - sent_s)
        if len(times_s) >= MOST_MESSAGES // 2:
            break
        tell(min(spent_s / seconds, 1.0))
        await asyncio.sleep(random.uniform(0.0, _MOST_PAUSE_S))
    return times_s[1:]  # the first one warms up


async def _rates(ws: aiohttp.ClientWebSocketResponse, transfer: Transfer, seconds: float) -> list[float]:
    """Bits per second of transfers that double, until one takes long enough or time or bytes are used up."""
    rates, size, used = [], _FIRST_BYTES, 0
    began_s = time.perf_counter()
    while used + size <= MOST_BYTES * 3 // 4:
        sunk = await transfer(ws, size)
        used += size
        if sunk.seconds > 0.0:
            rates.append(sunk.size_bytes * 8 / sunk.seconds)
        spent_s = time.perf_counter() - began_s
        if sunk.seconds >= _LONG_ENOUGH_S or spent_s + 2 * sunk.seconds > seconds:
            break
        size *= 2
    return rates


async def _send_up(ws: aiohttp.ClientWebSocketResponse, size: int) -> Sunk:
    """Send ``size`` bytes; what the server says of them."""
    chunk = bytes([SINK]) + bytes(CHUNK_BYTES - 1)
    for _ in range(size // CHUNK_BYTES):
        await ws.send_bytes(chunk)
    await ws.send_bytes(bytes([REPORT]))
    try:
        return msgspec.msgpack.decode(await _bytes(ws, MOST_SECONDS), type=Sunk)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the server's report of what it took is none: {error}") from error


async def _ask_down(ws: aiohttp.ClientWebSocketResponse, size: int) -> Sunk:
    """Ask for ``size`` bytes; how they came."""
    await ws.send_bytes(bytes([STREAM]) + size.to_bytes(4))
    received = len(await _bytes(ws))
    first, first_s = received, time.perf_counter()
    while received < size:
        received += len(await _bytes(ws))
    return Sunk(received - first, time.perf_counter() - first_s)


async def _bytes(ws: aiohttp.ClientWebSocketResponse, within_s: float = _MOST_ECHO_S) -> bytes:
    """The next binary message. Raises LinkClosedError, ProtocolError, TimeoutError."""
    async with asyncio.timeout(within_s):
        message = await ws.receive()
    if message.type is aiohttp.WSMsgType.BINARY:
        data: bytes = message.data
        return data
    if message.type is aiohttp.WSMsgType.TEXT:
        raise ProtocolError("a text message; a probe is answered in binary")
    reason = message.extra if isinstance(message.extra, str) and message.extra else "no reason given"
    raise LinkClosedError(f"the server ended the measurement: {reason}")
