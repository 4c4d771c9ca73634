"""What links cost, measured here and now; for ``foredraft bench``.

The bare echoes are what there would be without this project: the same bytes through aiohttp
alone. Both ends run on the caller's loop, so a round trip includes the work of both.
"""

import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from foredraft.errors import LinkClosedError
from foredraft.links.address import SESSION_PATH
from foredraft.links.proxy_process import proxy_process
from foredraft.links.shaping import ProxyReport, Shape, percentile
from foredraft.links.websocket import accept, connect
from foredraft.protocol.messages import Message

WARM_UP = 100


@asynccontextmanager
async def _listening(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A server with one route on a free port; yields its URL."""
    app = web.Application()
    app.router.add_get(f"/{SESSION_PATH}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _timed(trip: Callable[[], Awaitable[None]], count: int) -> list[float]:
    for _ in range(WARM_UP):
        await trip()
    times_s = []
    for _ in range(count):
        began_s = time.perf_counter()
        await trip()
        times_s.append(time.perf_counter() - began_s)
    return times_s


async def bare_echo_round_trips(up_bytes: int, down_bytes: int, count: int = 1000) -> list[float]:
    """Seconds of ``count`` round trips of a bare aiohttp WebSocket over loopback.

    ``up_bytes`` go to the server as one binary message, ``down_bytes`` come back.
    """
    up, down = bytes(up_bytes), bytes(down_bytes)

    async def echo(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        async for _ in ws:
            await ws.send_bytes(down)
        return ws

    async with (
        _listening(echo) as url,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/{SESSION_PATH}", compress=0) as ws,
    ):

        async def trip() -> None:
            await ws.send_bytes(up)
            await ws.receive_bytes()

        return await _timed(trip, count)


async def link_round_trips(up: Message, down: Message, count: int = 1000) -> list[float]:
    """Seconds of ``count`` round trips of messages over our own link, otherwise as the bare echo."""

    async def echo(request: web.Request) -> web.StreamResponse:
        link, response = await accept(request)
        try:
            while True:
                await link.receive()
                await link.send(down)
        except LinkClosedError:
            await link.close()
        return response

    async with _listening(echo) as url:
        link = await connect(url)

        async def trip() -> None:
            await link.send(up)
            await link.receive()

        try:
            return await _timed(trip, count)
        finally:
            await link.close()


@dataclass(frozen=True, slots=True)
class Precision:
    """How precise the shaping proxy is here: round trips of bytes over sockets, in seconds.

    ``bare_p50_s`` is the same echo without the proxy, at the same pace, since whoever slept for a
    while wakes up slower. ``error``: through the proxy, less the bare
    round trip and the delay that was asked for.
    """

    round_trip_s: float
    bare_p50_s: float
    error_p50_s: float
    error_p99_s: float
    report: ProxyReport


def measure_precision(round_trip_s: float = 0.024, count: int = 100) -> Precision:
    """Send bytes through a proxy process to an echo and back. Blocks for count round trips."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()[:2]
    threading.Thread(target=_echo_connections, args=(listener,), daemon=True).start()
    try:
        bare_s = sorted(_socket_round_trips(host, port, count, pause_s=round_trip_s))
        half = Shape(delay_s=round_trip_s / 2)
        with proxy_process(host, port, up=half, down=half) as proxy:
            shaped_s = _socket_round_trips(proxy.host, proxy.port, count, pause_s=0.0)
            report = proxy.report()
    finally:
        listener.close()
    bare_p50_s = percentile(bare_s, 0.5)
    errors_s = sorted(trip_s - bare_p50_s - round_trip_s for trip_s in shaped_s)
    return Precision(round_trip_s, bare_p50_s, percentile(errors_s, 0.5), percentile(errors_s, 0.99), report)


def _echo_connections(listener: socket.socket) -> None:
    """One connection after another, until the listener is closed."""
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer, contextlib.suppress(OSError):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := peer.recv(4096):
                peer.sendall(data)


def _socket_round_trips(host: str, port: int, count: int, pause_s: float) -> list[float]:
    payload = bytes(25)
    times_s = []
    with socket.create_connection((host, port)) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            time.sleep(pause_s)
            began_s = time.perf_counter()
            peer.sendall(payload)
            received = 0
            while received < len(payload):
                received += len(peer.recv(4096))
            times_s.append(time.perf_counter() - began_s)
    return times_s
